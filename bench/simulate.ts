/**
 * Drives the product's scheduler with a virtual clock and compares it with offline packings.
 *
 *     node bench/simulate.ts [--jobs 1000000] [--gpus 1000] [--seed 1]
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { offlineMakespan, volumeBound, type Packing } from "./simulate/offline.ts";
import { OnlineRun } from "./simulate/online.ts";
import { makeWorkload } from "./simulate/workload.ts";

const GPU_MB = 80_000;
const MARGIN_SHARE = 0.05;
const NOISE = 0.2;
const KINDS = 64;
const TELEMETRY_MS = 2000;
const BACKLOG_PER_GPU = 8;

const { values } = parseArgs({
  options: {
    jobs: { type: "string", default: "1000000" },
    gpus: { type: "string", default: "1000" },
    seed: { type: "string", default: "1" },
  },
});
const gpus = Number(values.gpus);
const jobs = Number(values.jobs);
const workload = makeWorkload({ jobs, kinds: KINDS, noise: NOISE, seed: Number(values.seed) });
console.log(
  `${jobs} jobs of ${KINDS} kinds, ${gpus} GPUs of ${GPU_MB} MB, noise ±${NOISE * 100} %, ` +
    `Node ${process.versions.node}, ${cpus()[0]?.model ?? "unknown CPU"}`,
);

const cpuBefore = process.cpuUsage();
const online = new OnlineRun(workload, {
  gpus,
  totalMb: GPU_MB,
  backlog: BACKLOG_PER_GPU * gpus,
  telemetryMs: TELEMETRY_MS,
}).run();
const cpu = process.cpuUsage(cpuBefore);
console.log(
  `scheduler: makespan ${hours(online.makespanMs)}, ${online.overCommits} over-commits of true use ` +
    `(fullest GPU ${Math.round(online.worstFillMb)} MB), passed at most ${online.maxPasses} times`,
);
console.log(
  `  ${online.admissions} admissions, ${online.decisions} decisions, ${online.steps} steps in ` +
    `${(online.stepMs / 1000).toFixed(1)} s: ` +
    `${Math.round((1000 * online.admissions) / online.stepMs)} admissions/s, ` +
    `${Math.round((1000 * online.decisions) / online.stepMs)} decisions/s; ` +
    `CPU time with the virtual machine ${((cpu.user + cpu.system) / 1e6).toFixed(1)} s`,
);
const waits = online.waitMs.toSorted();
console.log(
  `  wait p50 ${hours(at(waits, 0.5))}, p99 ${hours(at(waits, 0.99))}, max ${hours(at(waits, 1))}`,
);

const measured: Packing = {
  gpus,
  usableMb: GPU_MB * (1 - MARGIN_SHARE),
  sizeMb: (job) =>
    Math.ceil(workload.kinds[workload.kindOf[job] ?? 0]?.profile.vramPeakMb.max ?? 0),
};
const clairvoyant: Packing = {
  gpus,
  usableMb: GPU_MB,
  sizeMb: (job) => workload.trueMb[job] ?? 0,
};
compare("offline best-fit with the same measured maxima and margin", measured, 1.1);
compare("offline best-fit that knows every true size", clairvoyant, 1.45);
if (online.overCommits > 0) process.exitCode = 1;

function compare(name: string, packing: Packing, limit: number): void {
  const makespan = offlineMakespan(workload, packing);
  const ratio = online.makespanMs / makespan;
  console.log(
    `${name}: makespan ${hours(makespan)} (volume bound ${hours(volumeBound(workload, packing))}), ` +
      `ratio ${ratio.toFixed(3)}, limit ${limit}`,
  );
  if (ratio > limit) process.exitCode = 1;
}

function hours(ms: number): string {
  return `${(ms / 3_600_000).toFixed(3)} h`;
}

function at(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}
