/**
 * What sampling costs: CPU of one core and the longest hold of the event loop.
 *
 * Run by hand: `node bench/monitor.ts [seconds]`. Measures, at 10 Hz each,
 * - telemetry looking at a worker's tree (a Node process and two children of one of its threads),
 * - the same through pidusage,
 * - the monitor reading the scripted device with eight GPUs and holders,
 * - the monitor reading an NVML library of eight GPUs, if a C compiler is there.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import pidusage from "pidusage";
import { monotonicClock } from "../src/telemetry/clock.ts";
import { InstanceTracker } from "../src/telemetry/instance-tracker.ts";
import { ProcReader } from "../src/telemetry/process-reader.ts";
import { Monitor } from "../workers/gpu-monitor/monitor.ts";
import { NvmlDriver } from "../workers/gpu-monitor/sources/nvml-driver.ts";
import { ScriptedSource } from "../workers/gpu-monitor/sources/scripted.ts";
import { scriptSchema } from "../workers/gpu-monitor/sources/script-schema.ts";

const HZ = 10;
const BACK_TO_BACK = 500;
const SECONDS = Number(process.argv[2] ?? 10);
const FIXTURES = join(import.meta.dirname, "../test/fixtures/gpu");

/** CPU while `work` runs at 10 Hz, less what an idle loop costs; then, apart from it, the holds. */
async function measure(name: string, work: () => unknown): Promise<void> {
  for (let warm = 0; warm < 400; warm += 1) await work();
  const idle = await cpuPercent(() => undefined);
  const busy = await cpuPercent(work);
  // Watching the loop costs more than what is watched, so it has a run of its own.
  const delays = monitorEventLoopDelay({ resolution: 1 });
  delays.enable();
  await cpuPercent(work);
  delays.disable();
  const { user, system } = await back(work);
  const longestMs = (delays.max / 1e6).toFixed(1);
  const usualMs = (delays.percentile(99) / 1e6).toFixed(1);
  const percent = Math.max(0, busy - idle)
    .toFixed(2)
    .padStart(5);
  const atOnce = (((user + system) / BACK_TO_BACK) * HZ * 1e-4).toFixed(2);
  console.log(
    `${name}\n  ${percent} % of a core; ${atOnce} % by back-to-back readings; loop held ${usualMs} ms (p99), ${longestMs} ms (most)`,
  );
}

/** What a reading takes where caches are warm and no one else is in the way. */
async function back(work: () => unknown): Promise<NodeJS.CpuUsage> {
  const before = process.cpuUsage();
  for (let count = 0; count < BACK_TO_BACK; count += 1) await work();
  return process.cpuUsage(before);
}

async function cpuPercent(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  const startMs = performance.now();
  for (let tick = 1; tick <= SECONDS * HZ; tick += 1) {
    await work();
    await sleep(Math.max(0, startMs + (tick * 1000) / HZ - performance.now()));
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 10 / (performance.now() - startMs);
}

async function child(command: string, args: readonly string[]): Promise<ChildProcess> {
  const started = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
  await once(started.stdout ?? started, "data");
  return started;
}

const holder = await child(process.execPath, [join(FIXTURES, "child-of-thread.ts")]);
const folder = mkdtempSync(join(tmpdir(), "bench-monitor-"));
try {
  const pid = holder.pid ?? 0;
  const reader = new ProcReader();
  const identity = { instanceId: "bench", rootPid: pid };
  const tracker = new InstanceTracker(identity, reader, {
    hostCgroup: reader.cgroup(process.pid),
    clock: monotonicClock,
  });
  const threads = spawnSync("ls", [`/proc/${pid}/task`], { encoding: "utf8" }).stdout.split("\n");
  console.log(
    `tree: ${reader.tree(pid).length} processes, ${threads.length - 1} threads in the first`,
  );
  await measure("nothing (what others on this machine do to the loop)", () => undefined);
  await measure("telemetry: tree of one worker", async () => {
    await tracker.look(performance.now());
    tracker.tree();
  });
  const pids = reader.tree(pid).map((reading) => reading.pid);
  await measure("the same processes through pidusage", () => pidusage(pids));
  pidusage.clear();

  const processes = [1, 2, 3, 4].map(() => ({ pid, bytes: 2 ** 30 }));
  const script = scriptSchema.parse({
    gpus: Array.from({ length: 8 }, (_, index) => ({
      uuid: `GPU-${index}`,
      memory_total_bytes: 2 ** 36,
    })),
    timeline: Array.from({ length: 8 }, (_, gpu) => ({ at_ms: 0, gpu, processes })),
  });
  await using scripted = new Monitor(
    new ScriptedSource(script, folder, () => performance.now()),
    process.pid,
  );
  await measure("monitor: scripted device, 8 GPUs, 32 holders", () => scripted.sample());
  await benchNvml(folder, pid);
} finally {
  process.kill(-(holder.pid ?? 0), "SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}

async function benchNvml(where: string, pid: number): Promise<void> {
  const path = join(where, "libnvml-stub.so");
  const source = join(FIXTURES, "nvml/nvml-stub.c");
  if (spawnSync("cc", ["-shared", "-fPIC", "-O2", "-o", path, source]).status !== 0) {
    console.log("monitor: NVML skipped, there is no C compiler");
    return;
  }
  const { default: koffi } = await import("koffi");
  const library = koffi.load(path);
  const add = library.func("void stub_add_device(const char *, const char *, uint64)");
  const hold = library.func("void stub_add_process(uint32, int, uint32, uint64)");
  for (let gpu = 0; gpu < 8; gpu += 1) {
    add(`GPU-${gpu}`, "GPU", 2n ** 36n);
    for (let count = 0; count < 4; count += 1) hold(gpu, 0, pid, 2n ** 30n);
  }
  const opened = await NvmlDriver.open(path);
  if (typeof opened === "string") throw new Error(opened);
  await using monitor = new Monitor(opened, process.pid);
  await measure("monitor: NVML of 8 GPUs, 32 holders (stub library)", () => monitor.sample());
}
