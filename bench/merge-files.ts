/**
 * Merges from file to file, each measured merge in a process of its own (time without its start):
 *
 *   cat     3 adapters, hashing in and out, against `cp` + `sha256sum` of the same bytes
 *   linear  3 rank-16 adapters of a 7B shape in delta space, two threads
 *   ties    the same adapters to rank 32 in delta space, and `compat: peft`, for few layers
 *   models  two bfloat16 checkpoints against a base, ties
 *
 *   npm run build
 *   node bench/merge-files.ts [rounds] [layers] [layers of ties] [row ...]
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { summary } from "./merge-statistics.ts";
import { writeCheckpoint, writeSevenB } from "./merge-fixtures.ts";

const [rounds, layers, tiesLayers] = [2, 3, 4].map((at, i) =>
  Number(process.argv[at] ?? [7, 32, 1][i]),
);
const rows = process.argv.slice(5);
const isWanted = (row: string): boolean => rows.length === 0 || rows.includes(row);

const folder = mkdtempSync(join(tmpdir(), "merge-bench-"));
const fromHere = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

interface Run {
  readonly seconds: number;
  readonly peakMb: number;
  readonly report: { readonly energy_kept: number | null; readonly sign_conflict: number | null };
}

function run(kind: "adapters" | "models", threads: number, input: object): Run {
  const args = [fromHere("merge-run.ts"), folder, kind, String(threads)];
  const text = execFileSync(process.execPath, [...args, JSON.stringify(input)], {
    encoding: "utf8",
  });
  rmSync(join(folder, "out"), { recursive: true, force: true });
  return JSON.parse(text) as Run;
}

const made = new Map<number, { path: string }[]>();

function adapters(count: number): { path: string }[] {
  const known = made.get(count);
  if (known !== undefined) return known;
  const paths = ["a", "b", "c"].map((seed) => {
    return { path: writeSevenB(join(folder, `${count}-${seed}`), seed, count) };
  });
  made.set(count, paths);
  return paths;
}

/** Seconds of copying and hashing the same files with the system's tools. */
function copyAndHash(paths: readonly { path: string }[], sync: boolean): number {
  const started = performance.now();
  for (const [i, { path }] of paths.entries()) {
    const copy = join(folder, `copy-${i}`);
    execFileSync("cp", [join(path, "adapter_model.safetensors"), copy]);
    if (sync) execFileSync("sync", [copy]);
    execFileSync("sha256sum", [copy]);
  }
  const seconds = (performance.now() - started) / 1000;
  for (const i of paths.keys()) rmSync(join(folder, `copy-${i}`));
  return seconds;
}

function benchCat(count: number): void {
  const inputs = adapters(count);
  const megabytes = statSync(join(inputs[0]?.path ?? "", "adapter_model.safetensors")).size / 1e6;
  console.log(`cat, 3 x ${megabytes.toFixed(0)} MB`);
  const pairs = {
    ours: [] as number[],
    plain: [] as number[],
    synced: [] as number[],
    peak: [] as number[],
  };
  for (let round = 0; round < (rounds ?? 7); round += 1) {
    const merged = run("adapters", 2, { adapters: inputs, method: "cat" });
    pairs.ours.push(merged.seconds);
    pairs.peak.push(merged.peakMb);
    pairs.plain.push(copyAndHash(inputs, false));
    pairs.synced.push(copyAndHash(inputs, true));
  }
  const ratio = (other: readonly number[]): number[] =>
    other.map((s, i) => s / (pairs.ours[i] ?? NaN));
  console.log(`  seconds                 ${summary(pairs.ours)}`);
  console.log(`  cp + sha256sum          ${summary(pairs.plain)}`);
  console.log(`  cp + sync + sha256sum   ${summary(pairs.synced)}`);
  console.log(`  speed / (cp + sha256sum)         ${summary(ratio(pairs.plain))}`);
  console.log(`  speed / (cp + sync + sha256sum)  ${summary(ratio(pairs.synced))}`);
  console.log(`  peak MB                 ${summary(pairs.peak)}`);
}

function benchMerge(title: string, kind: "adapters" | "models", input: object, threads = 2): void {
  const runs = Array.from({ length: Math.max(1, Math.min(3, rounds ?? 3)) }, () =>
    run(kind, threads, input),
  );
  console.log(`${title}, ${threads} threads`);
  console.log(`  seconds  ${summary(runs.map(({ seconds }) => seconds))}`);
  console.log(`  peak MB  ${summary(runs.map(({ peakMb }) => peakMb))}`);
  console.log(`  report   ${JSON.stringify(runs[0]?.report)}`);
}

try {
  if (isWanted("cat")) benchCat(layers ?? 32);
  if (isWanted("linear")) {
    const input = { adapters: adapters(layers ?? 32), method: "linear" };
    benchMerge(`linear, 7B shape, ${layers} layers`, "adapters", input);
  }
  if (isWanted("ties")) {
    const inputs = adapters(tiesLayers ?? 1);
    const input = { adapters: inputs, method: "ties", rank: 32 };
    benchMerge(`ties to rank 32 in delta space, 7B shape, ${tiesLayers} layers`, "adapters", input);
    benchMerge("the same, one thread", "adapters", input, 1);
    const peft = { adapters: inputs, method: "ties", compat: "peft" };
    benchMerge("the same adapters, compat peft", "adapters", peft);
  }
  if (isWanted("models")) {
    const models = ["a", "b"].map((seed) => ({
      path: writeCheckpoint(join(folder, `m-${seed}`), seed, 2),
    }));
    const input = {
      base: writeCheckpoint(join(folder, "m-base"), "base", 2),
      models,
      max_shard_mb: 500,
    };
    benchMerge("ties of two checkpoints against a base, 2 layers of 7B, bfloat16", "models", input);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
