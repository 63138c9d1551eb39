/**
 * What isolation costs: jails against plain processes, in interleaved pairs, so that a busy machine
 * slows both alike. Run with `node -C @cjm/source bench/sandbox.ts [pairs]` after `npm run build`, with
 * bubblewrap or nsjail on PATH. It measures the built worker, as users run it: starting a process takes the
 * longer, the more memory the starter has, and the sources are compiled in memory.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { promisify } from "node:util";
import type { Limits } from "../workers/sandbox/policy.ts";
import type * as runProgramModule from "../workers/sandbox/run-program.ts";
import type * as runSiteModule from "../workers/sandbox/run-site.ts";
import type * as workbenchModule from "../workers/sandbox/workbench.ts";

/** A module of the built worker. */
async function built<Module>(name: string): Promise<Module> {
  return (await import(
    new URL(`../dist/workers/sandbox/${name}.js`, import.meta.url).href
  )) as Module;
}

const { runProgram } = await built<typeof runProgramModule>("run-program");
const { openSite } = await built<typeof runSiteModule>("run-site");
const { Workbench } = await built<typeof workbenchModule>("workbench");

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

const openJail = async (
  workbench: workbenchModule.Workbench,
  isolation: "nsjail" | "bubblewrap",
) => {
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

const LANES = 8;
const ROUNDS = 7;

/** Jails per second of a machine that does nothing else, and what of it is this process's work. */
const saturate = async (jail: OpenJail): Promise<{ rate: number; own: number; below: number }> => {
  const start = performance.now();
  const before = cpuMs();
  let left = pairs;
  const lane = async (): Promise<void> => {
    for (; left > 0;) {
      left -= 1;
      await jail.run(["true"]);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  const seconds = (performance.now() - start) / 1_000;
  const [own = 0, below = 0] = cpuMs().map(
    (value, index) => (value - (before[index] ?? 0)) / pairs,
  );
  return { rate: pairs / seconds, own, below };
};

const runMany = async (jails: Readonly<Record<string, OpenJail>>): Promise<void> => {
  const seen: Record<string, Awaited<ReturnType<typeof saturate>>[]> = {};
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, jail] of Object.entries(jails)) {
      (seen[name] ??= []).push(await saturate(jail));
    }
  }
  for (const [name, all] of Object.entries(seen)) {
    const of = (pick: (one: (typeof all)[number]) => number): number[] => all.map(pick);
    const rates = of(({ rate }) => rate);
    const mid = (pick: (one: (typeof all)[number]) => number): string =>
      percentile(of(pick), 0.5).toFixed(1);
    console.log(
      `${LANES} at a time, ${name}: ${mid(({ rate }) => rate)} jails/s ` +
        `[${Math.min(...rates).toFixed(0)}..${Math.max(...rates).toFixed(0)}], ${ROUNDS} rounds; CPU of a jail: ` +
        `supervisor ${mid(({ own }) => own)} ms, processes it waited for ${mid(({ below }) => below)} ms`,
    );
  }
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
  await runMany({ "cold starts": fromCold, "one kept ready": fromReady });
  await overshootWall(fromCold);
}
