import { setTimeout as delay } from "node:timers/promises";
import { DoorClient, type Measurements } from "../../door/index.ts";
import { CjmError } from "../../errors/index.ts";
import { readHostInfo } from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import type { TopOutput } from "../json-output.ts";
import { isInteractive, print, printJson, width } from "../terminal.ts";
import { renderTop } from "../top-view.ts";

export interface TopOptions extends GlobalOptions {
  readonly delay: string;
  readonly once?: boolean;
  readonly json?: boolean;
}

const HIDE_CURSOR = "\u001b[?25l";
const SHOW_CURSOR = "\u001b[?25h";
const HOME = "\u001b[H";
const CLEAR_LINE = "\u001b[K";
const CLEAR_BELOW = "\u001b[J";

export async function topCommand(options: TopOptions): Promise<number> {
  const seconds = Number(options.delay);
  if (!(seconds >= 0.1 && seconds <= 3_600)) {
    throw new CjmError(
      "CAPABILITY_INPUT",
      `--delay ${options.delay}: expected 0.1 to 3600 seconds`,
    );
  }
  const { dataDir } = await configOf(options);
  const live = await readHostInfo(dataDir);
  if (live?.door == null) {
    throw new CjmError("DOOR_UNAVAILABLE", `No host runs on ${dataDir}`);
  }
  await using client = new DoorClient(live.door);
  // Where nobody watches, one picture is what was meant.
  if (options.once === true || options.json === true || !isInteractive()) {
    const measured = await client.measurements();
    if (options.json === true) printJson(toJson(measured));
    else print(renderTop({ ...measured, width: width() }).join("\n"));
    return EXIT.ok;
  }
  return await watch(client, seconds * 1_000);
}

/** Redraws until Ctrl-C or until the host is gone. */
async function watch(client: DoorClient, everyMs: number): Promise<number> {
  const stop = new AbortController();
  const onSignal = (): void => {
    stop.abort();
  };
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  process.stdout.write(`${HIDE_CURSOR}${HOME}${CLEAR_BELOW}`);
  try {
    while (!stop.signal.aborted) {
      const lines = renderTop({ ...(await client.measurements()), width: width() });
      const shown = lines.slice(0, Math.max(4, (process.stdout.rows ?? 24) - 1));
      process.stdout.write(`${HOME}${shown.map((line) => `${line}${CLEAR_LINE}\n`).join("")}`);
      process.stdout.write(CLEAR_BELOW);
      await delay(everyMs, undefined, { signal: stop.signal }).catch(() => undefined);
    }
  } finally {
    process.stdout.write(SHOW_CURSOR);
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
  return EXIT.ok;
}

function toJson({ snapshot, jobs }: Measurements): TopOutput {
  return {
    is_live: snapshot.isLive,
    source: snapshot.source,
    age_ms: snapshot.ageMs,
    ram_total_mb: snapshot.ram.totalMb,
    ram_available_mb: snapshot.ram.availableMb,
    gpus: snapshot.gpus.map((gpu) => ({
      uuid: gpu.uuid,
      index: gpu.index,
      name: gpu.name,
      total_mb: gpu.totalMb,
      used_mb: gpu.usedMb,
      free_mb: gpu.freeMb,
      foreign_mb: gpu.foreignMb,
      utilization_percent: gpu.utilizationPercent,
      lost: gpu.lost,
      instances: { ...gpu.instances },
    })),
    instances: snapshot.instances.map((one) => ({
      id: one.instanceId,
      pid: one.pid,
      processes: one.processes,
      ram_mb: one.hostMb,
      ram_peak_mb: one.hostPeakMb,
      vram_peak_mb: one.gpuPeakMb,
      cpu_percent: one.cpuPercent,
      jobs: [...one.jobs],
    })),
    jobs: jobs.map((job) => ({
      id: job.jobId,
      instance: job.instanceId,
      duration_ms: job.durationMs,
      cpu_percent: job.cpuPercentMean,
      ram_peak_mb: job.hostPeakMb,
      vram_peak_mb: job.gpuPeakMb === null ? null : { ...job.gpuPeakMb },
    })),
  };
}
