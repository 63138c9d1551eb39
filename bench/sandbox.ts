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
import { runProgram, type Program } from "../workers/sandbox/run-program.ts";
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

using workbench = await Workbench.open({
  interpreters: { python: "python3", node: process.execPath, bash: "bash" },
  defaultLimits: {},
});

for (const { name, usable } of workbench.probes) {
  if (!usable || name === "none") continue;
  const place = { language: "command", isolation: name, input_dirs: {}, env: {} } as const;
  using site = await openSite(workbench, { ...place, limits: {} }, signal);
  const program = (...argv: string[]): Program => ({
    policy: { ...site.policy, argv },
    files: [],
    collect: [],
  });
  const jail = (...argv: string[]) => runProgram(site.engine, program(...argv), context);

  for (let warm = 0; warm < 5; warm += 1) await jail("true");
  const plain: number[] = [];
  const jailed: number[] = [];
  const bare: number[] = [];
  for (let pair = 0; pair < pairs; pair += 1) {
    plain.push(await timed(() => run("true")));
    jailed.push(await timed(() => jail("true")));
    bare.push(await timed(() => run("bwrap", BARE_BUBBLEWRAP).catch(() => undefined)));
  }
  const overhead = jailed.map((value, index) => value - (plain[index] ?? 0));
  const memory = workbench.cgroups.parent === null ? "sampled" : "cgroup";
  console.log(`\n${name}, limits by ${memory}, ${pairs} interleaved pairs, ${cpus().length} cores`);
  console.log(row("plain true", plain));
  console.log(row("true in a jail", jailed));
  console.log(row("difference of each pair", overhead));
  console.log(row("true in a bare bubblewrap", bare));

  const start = performance.now();
  const before = cpuMs();
  for (let round = 0; round < pairs / 4; round += 1) {
    await Promise.all([1, 2, 3, 4].map(() => jail("true")));
  }
  const seconds = (performance.now() - start) / 1_000;
  const count = Math.ceil(pairs / 4) * 4;
  const [own = 0, below = 0] = cpuMs().map(
    (value, index) => (value - (before[index] ?? 0)) / count,
  );
  console.log(
    `four at a time: ${(count / seconds).toFixed(0)} jails/s; CPU of a jail: supervisor ${own.toFixed(1)} ms, ` +
      `processes it waited for ${below.toFixed(1)} ms`,
  );

  const overshoot: number[] = [];
  for (let index = 0; index < Math.min(pairs, 40); index += 1) {
    using short = await openSite(workbench, { ...place, limits: { wall_ms: 100 } }, signal);
    const policy = { ...short.policy, argv: ["sleep", "10"] };
    const result = await runProgram(short.engine, { policy, files: [], collect: [] }, context);
    overshoot.push(result.wall_ms - 100);
  }
  console.log(
    row("over a wall limit of 100 ms", overshoot),
    ` p99 ${percentile(overshoot, 0.99)} ms`,
  );
}
