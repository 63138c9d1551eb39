/**
 * A warm call from the host to a worker of each SDK, caged, beside a bare undici -> `node:http` echo
 * over the same kind of socket, and beside two bare Python echoes, in turn, in one run:
 *
 *     npm run build && node bench/warm-call.ts [rounds] [calls of 200 B] [calls of 1 MB] [python]
 *
 * With the Python of an environment that holds the original (`CJM_BENCH_ORIGINAL`) its own
 * measurement of the same call is shown too. `python` is the interpreter of the Python subjects.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { summary } from "./merge-statistics.ts";
import { openSubjects, type Subject } from "./worker-subjects.ts";

const [rounds = 15, smallCalls = 300, bigCalls = 20] = process.argv.slice(2, 5).map(Number);
const python = process.argv[5] ?? "python3";
const WARM_UP = 200;
const CLOCK_TICKS = 100;

const SIZES = [
  { name: "200 B", value: "x".repeat(200), calls: smallCalls },
  { name: "1 MB string", value: "x".repeat(1_000_000), calls: bigCalls },
];

interface Timing {
  readonly p50: number;
  readonly hostCpu: number;
  readonly workerCpu: number;
}

/** Milliseconds, each of a call; processor time too, which others on the machine change less. */
async function time(subject: Subject, value: string, calls: number): Promise<Timing> {
  const times: number[] = [];
  const [cpu, ticks] = [process.cpuUsage(), ticksOf(subject.pid())];
  for (let call = 0; call < calls; call += 1) {
    const started = performance.now();
    await subject.call(value);
    times.push(performance.now() - started);
  }
  const { user, system } = process.cpuUsage(cpu);
  const workerTicks = ticksOf(subject.pid()) - ticks;
  return {
    p50: times.toSorted((a, b) => a - b)[calls >> 1] ?? Number.NaN,
    hostCpu: (user + system) / 1_000 / calls,
    workerCpu: (workerTicks * 1_000) / CLOCK_TICKS / calls,
  };
}

function ticksOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

await using stack = new AsyncDisposableStack();
const subjects = stack.use(await openSubjects(python)).subjects;
for (const { name, value, calls } of SIZES) {
  const timings = new Map<string, Timing[]>(subjects.map((subject) => [subject.name, []]));
  for (const subject of subjects) await time(subject, value, Math.min(WARM_UP, calls * 4));
  for (let round = 0; round < rounds; round += 1) {
    for (const subject of subjects) {
      timings.get(subject.name)?.push(await time(subject, value, calls));
    }
  }
  console.log(`${name}, p50 of ${calls} calls in each of ${rounds} rounds, ms`);
  const limit = timings.get("bare node:http") ?? [];
  for (const [subject, taken] of timings) {
    const ratios = taken.map(({ p50 }, round) => p50 / (limit[round]?.p50 ?? Number.NaN));
    const cpu = `cpu ${median(taken.map(({ hostCpu }) => hostCpu)).toFixed(3)} + ${median(taken.map(({ workerCpu }) => workerCpu)).toFixed(3)}`;
    console.log(`  ${subject.padEnd(20)} ${summary(taken.map(({ p50 }) => p50))}  ${cpu}`);
    console.log(`  ${"  / bare node:http".padEnd(20)} ${summary(ratios)}`);
  }
}

const original = process.env["CJM_BENCH_ORIGINAL"];
if (original !== undefined) {
  const [program = "", script = ""] = original.split(" ");
  const text = execFileSync(program, [script, "--jobs", "1"], { encoding: "utf8" });
  console.log(`the original, on the same machine: ${text.trim()}`);
}
