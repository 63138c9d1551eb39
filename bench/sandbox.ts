/**
 * What isolation costs: jails against plain processes, in interleaved pairs, so that a busy machine
 * slows both alike. Run with `node -C @cjm/source bench/sandbox.ts [pairs]`, with bubblewrap or
 * nsjail on PATH; `workers/sandbox/node_modules/cjm-substrate` has to be a link to this package, as
 * `cjm-ctl install-all` makes it.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { promisify } from "node:util";
import type { Limits } from "../workers/sandbox/policy.ts";
import { runProgram } from "../workers/sandbox/run-program.ts";
import { openSite } from "../workers/sandbox/run-site.ts";
import { Workbench } from "../workers/sandbox/workbench.ts";

const run = promisify(execFile);
const pairs = Number(process.argv[2] ?? 100);
const { signal } = new AbortController();
const context = { signal, outputFolder: () => "/nonexistent" };

const percentile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[
    Math.min(values.length - 1, Math.floor(values.length * share))
  ] ?? Number.NaN;

const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const start = performance.now();
  await work();
  return performance.now() - start;
};

/** CPU of this process and of all children that have been waited for; ticks are 10 ms. */
const cpuMs = (): [number, number] => {
  const text = readFileSync("/proc/self/stat", "latin1");
  const fields = text
    .slice(text.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const ticks = (index: number): number => (fields[index] ?? 0) + (fields[index + 1] ?? 0);
  return [ticks(11) * 10, ticks(13) * 10];
};

/** Namespaces and a root of its own, without limits, filter, change of user or result. */
const BARE_BUBBLEWRAP = [
  [
    "--unshare-all",
    "--die-with-parent",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
  ],
  ["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc"],
  ["--dev", "/dev", "--tmpfs", "/tmp", "true"],
].flat();

const row = (name: string, values: readonly number[]): string =>
  `${name.padEnd(34)} p50 ${percentile(values, 0.5).toFixed(1).padStart(7)} ms   p95 ${percentile(
    values,
    0.95,
  )
    .toFixed(1)
    .padStart(7)} ms`;

const OPTIONS = {
  interpreters: { python: "python3", node: process.execPath, bash: "bash" },
  defaultLimits: {},
};
/** Sets up every jail when it is asked for. */
await using cold = await Workbench.open({ ...OPTIONS, keepReadyMs: 0 });
/** Sets up the next jail when a run has ended; as the worker does unless it is told otherwise. */
await using ready = await Workbench.open(OPTIONS);

const openJail = async (workbench: Workbench, isolation: "nsjail" | "bubblewrap") => {
  const place = { language: "command", isolation, input_dirs: {}, env: {}, limits: {} } as const;
  const site = await openSite(workbench, place, signal);
  const run = (argv: readonly string[], limits: Partial<Limits> = {}) =>
    runProgram(
      site.engine,
      {
        policy: { ...site.policy, argv, limits: { ...site.policy.limits, ...limits } },
        files: [],
        collect: [],
      },
      context,
    );
  for (let warm = 0; warm < 5; warm += 1) await run(["true"]);
  return { run, reserve: site.engine.reserve, [Symbol.dispose]: () => site[Symbol.dispose]() };
};

type OpenJail = Awaited<ReturnType<typeof openJail>>;

/** One of each in turn; nothing is being set up in the background while one is timed. */
const comparePairs = async (fromCold: OpenJail, fromReady: OpenJail): Promise<void> => {
  const times = {
    plain: new Array<number>(),
    cold: new Array<number>(),
    ready: new Array<number>(),
    bare: new Array<number>(),
  };
  for (let pair = 0; pair < pairs; pair += 1) {
    await fromReady.reserve.ready();
    times.plain.push(await timed(() => run("true")));
    times.cold.push(await timed(() => fromCold.run(["true"])));
    times.ready.push(await timed(() => fromReady.run(["true"])));
    await fromReady.reserve.ready();
    times.bare.push(await timed(() => run("bwrap", BARE_BUBBLEWRAP).catch(() => undefined)));
  }
  const over = (values: readonly number[]): number[] =>
    values.map((value, index) => value - (times.plain[index] ?? 0));
  console.log(row("plain true", times.plain));
  console.log(row("true in a bare bubblewrap", times.bare));
  console.log(row("true in a jail, cold start", times.cold));
  console.log(row("  over the plain one of its pair", over(times.cold)));
  console.log(row("true in a jail kept ready", times.ready));
  console.log(row("  over the plain one of its pair", over(times.ready)));
};

/** One run after the other without any pause, so that a jail kept ready is hardly ever ready. */
const runBackToBack = async (name: string, jail: OpenJail): Promise<void> => {
  const times: number[] = [];
  await jail.reserve.ready();
  const start = performance.now();
  for (let index = 0; index < pairs; index += 1) {
    times.push(await timed(() => jail.run(["true"])));
  }
  const rate = (pairs * 1_000) / (performance.now() - start);
  console.log(`${row(`back to back, ${name}`, times)}   ${rate.toFixed(0)} jails/s`);
};

const runFourAtATime = async (name: string, jail: OpenJail): Promise<void> => {
  const start = performance.now();
  const before = cpuMs();
  const rounds = Math.ceil(pairs / 4);
  for (let round = 0; round < rounds; round += 1) {
    await Promise.all([1, 2, 3, 4].map(() => jail.run(["true"])));
  }
  const seconds = (performance.now() - start) / 1_000;
  const count = rounds * 4;
  const [own = 0, below = 0] = cpuMs().map(
    (value, index) => (value - (before[index] ?? 0)) / count,
  );
  console.log(
    `four at a time, ${name}: ${(count / seconds).toFixed(0)} jails/s; CPU of a jail: ` +
      `supervisor ${own.toFixed(1)} ms, processes it waited for ${below.toFixed(1)} ms`,
  );
};

const overshootWall = async (jail: OpenJail): Promise<void> => {
  const overshoot: number[] = [];
  for (let index = 0; index < Math.min(pairs, 40); index += 1) {
    const { wall_ms: wallMs } = await jail.run(["sleep", "10"], { wallMs: 100 });
    overshoot.push(wallMs - 100);
  }
  console.log(
    row("over a wall limit of 100 ms", overshoot),
    ` p99 ${percentile(overshoot, 0.99)} ms`,
  );
};

for (const { name, usable } of cold.probes) {
  if (!usable || name === "none") continue;
  using fromCold = await openJail(cold, name);
  using fromReady = await openJail(ready, name);
  const memory = cold.cgroups.parent === null ? "sampled" : "cgroup";
  console.log(
    `\n${name}, limits by ${memory}, ${pairs} interleaved rounds, ${cpus().length} cores`,
  );
  await comparePairs(fromCold, fromReady);
  await runBackToBack("cold starts", fromCold);
  await runBackToBack("one kept ready", fromReady);
  await runFourAtATime("cold starts", fromCold);
  await runFourAtATime("one kept ready", fromReady);
  await overshootWall(fromCold);
}
