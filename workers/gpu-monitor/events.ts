import type { Gpu, MonitorEvent, Sample } from "./model.ts";

/** Changes below this are allocator noise, not events. */
const NOISE_BYTES = 64 * 1024 * 1024;

/** Reasons that cost speed and are not the user's own setting. */
const HARMFUL_THROTTLE = new Set([
  "hw_slowdown",
  "hw_thermal_slowdown",
  "hw_power_brake_slowdown",
  "sw_thermal_slowdown",
]);

/** What happened between two samples of one stream. Pure; `before` is undefined for the first one. */
export function eventsBetween(before: Sample | undefined, after: Sample): MonitorEvent[] {
  const known = new Map(before?.gpus.map((gpu) => [gpu.uuid, gpu]));
  const events = after.gpus.flatMap((gpu) => [...gpuEvents(known.get(gpu.uuid), gpu)]);
  const present = new Set(after.gpus.map((gpu) => gpu.uuid));
  for (const [uuid, gpu] of known) {
    if (present.has(uuid) || gpu.lost) continue;
    events.push({ event: "gpu_lost", gpu_uuid: uuid, detail: { reason: "no longer listed" } });
  }
  const { seq, ts, monotonic_ms } = after;
  return events.map((event) => ({ type: "event", seq, ts, monotonic_ms, ...event }));
}

type Found = Pick<MonitorEvent, "event" | "gpu_uuid" | "detail">;

function* gpuEvents(before: Gpu | undefined, after: Gpu): Generator<Found> {
  if (after.lost) {
    const reason = after.unavailable["memory_used_bytes"] ?? "lost";
    if (before?.lost !== true) {
      yield { event: "gpu_lost", gpu_uuid: after.uuid, detail: { reason } };
    }
    return;
  }
  yield* recovery(before, after);
  yield* foreignProcesses(before, after);
  const harmful = harmfulReasons(after);
  const known = new Set(harmfulReasons(before));
  if (harmful.some((reason) => !known.has(reason))) {
    yield { event: "throttle", gpu_uuid: after.uuid, detail: { reasons: harmful } };
  }
}

function* recovery(before: Gpu | undefined, after: Gpu): Generator<Found> {
  const freed = (before?.memory_used_bytes ?? 0) - (after.memory_used_bytes ?? Infinity);
  if (freed < NOISE_BYTES) return;
  const detail = { freed_bytes: freed, memory_free_bytes: after.memory_free_bytes };
  yield { event: "vram_recovered", gpu_uuid: after.uuid, detail };
}

function* foreignProcesses(before: Gpu | undefined, after: Gpu): Generator<Found> {
  const seen = new Set(before?.processes?.map(({ pid }) => pid));
  for (const process of after.processes ?? []) {
    if (process.own !== false || seen.has(process.pid)) continue;
    const { pid, name, memory_bytes } = process;
    yield {
      event: "foreign_process",
      gpu_uuid: after.uuid,
      detail: { pid, name, memory_bytes },
    };
  }
}

function harmfulReasons(gpu: Gpu | undefined): string[] {
  return (gpu?.throttle_reasons ?? []).filter((reason) => HARMFUL_THROTTLE.has(reason));
}
