/**
 * What a worker costs before its first call, beside the bare interpreter with an HTTP listener, in
 * turn, in one run: milliseconds from the spawn to ready, and resident memory when idle. Workers run
 * in their cage, with Node's compile cache where it has one (warmed once).
 *
 *     npm run build && node bench/worker-start.ts [rounds] [python]
 */
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { probeCage } from "../src/process/index.ts";
import { summary } from "./merge-statistics.ts";
import {
  compilePrograms,
  nodeCommand,
  pythonCommand,
  startBare,
  WorkerBench,
  workerPid,
} from "./worker-subjects.ts";

const rounds = Number(process.argv[2] ?? 15);
const python = process.argv[3] ?? "python3";
/** How long a process is left alone before its memory is read. */
const SETTLE_MS = 300;
const END_MS = 5_000;

interface Start {
  readonly readyMs: number;
  /** Processor time until ready, which others on the machine change less. */
  readonly cpuMs: number;
  readonly rssMb: number;
}

await using stack = new AsyncDisposableStack();
stack.use(await compilePrograms());
const folder = await mkdtemp(join(tmpdir(), "cjm-bench-"));
stack.defer(() => rm(folder, { recursive: true, force: true }));
const bench = new WorkerBench(folder, (await probeCage()).cage);
let count = 0;

async function bare(command: readonly string[]): Promise<Start> {
  count += 1;
  const started = performance.now();
  const child = await startBare([...command, join(folder, `b${count}.sock`)]);
  const readyMs = performance.now() - started;
  const cpuMs = cpuOf(child.pid ?? 0);
  await sleep(SETTLE_MS);
  const rssMb = residentMb(child.pid ?? 0);
  child.kill("SIGKILL");
  return { readyMs, cpuMs, rssMb };
}

async function worker(command: readonly string[]): Promise<Start> {
  const started = performance.now();
  const connection = await bench.start(command);
  const readyMs = performance.now() - started;
  const pid = workerPid(connection);
  const cpuMs = cpuOf(pid);
  await sleep(SETTLE_MS);
  const rssMb = residentMb(pid);
  // As a host does: a worker that is killed leaves nothing in the compile cache.
  await connection.terminate(END_MS);
  return { readyMs, cpuMs, rssMb };
}

function cpuOf(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const [ns = ""] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ");
    return Number(ns) / 1e6;
  });
  return threads.reduce((sum, ms) => sum + ms, 0);
}

function residentMb(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmRSS:\s+(?<kb>\d+)/mu.exec(status)?.groups?.["kb"]) / 1_000;
}

const LANGUAGES = [
  {
    name: "TypeScript",
    bare: () => bare(nodeCommand("bare")),
    worker: () => worker(nodeCommand("echo")),
  },
  {
    name: "Python",
    bare: () => bare(pythonCommand(python, "bare.py")),
    worker: () => worker(pythonCommand(python, "echo.py")),
  },
];

for (const { name, bare: startBareOne, worker: startWorker } of LANGUAGES) {
  await startBareOne();
  await startWorker();
  const taken: { bare: Start; worker: Start }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    taken.push({ bare: await startBareOne(), worker: await startWorker() });
  }
  const of = (kind: "bare" | "worker", what: keyof Start): number[] =>
    taken.map((round) => round[kind][what]);
  const ratio = (what: keyof Start): number[] =>
    taken.map((round) => round.worker[what] / round.bare[what]);
  console.log(`${name}, ${rounds} rounds`);
  console.log(`  ready ms, bare listener  ${summary(of("bare", "readyMs"))}`);
  console.log(`  ready ms, worker         ${summary(of("worker", "readyMs"))}`);
  console.log(`    ratio                  ${summary(ratio("readyMs"))}`);
  console.log(`  cpu ms, bare listener    ${summary(of("bare", "cpuMs"))}`);
  console.log(`  cpu ms, worker           ${summary(of("worker", "cpuMs"))}`);
  console.log(`    ratio                  ${summary(ratio("cpuMs"))}`);
  console.log(`  idle MB, bare listener   ${summary(of("bare", "rssMb"))}`);
  console.log(`  idle MB, worker          ${summary(of("worker", "rssMb"))}`);
  console.log(`    ratio                  ${summary(ratio("rssMb"))}`);
}
