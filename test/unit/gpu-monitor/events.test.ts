import { expect, test } from "vitest";
import { eventsBetween } from "../../../workers/gpu-monitor/events.ts";
import { lostGpu } from "../../../workers/gpu-monitor/gpu.ts";
import { GIB, gpu, sample } from "./support.ts";

const names = (events: ReturnType<typeof eventsBetween>): string[] =>
  events.map(({ event }) => event);

test("memory that comes back is an event in the very next sample", () => {
  const events = eventsBetween(
    sample([gpu({ memory_used_bytes: 8 * GIB })]),
    sample([gpu({ memory_used_bytes: 2 * GIB, memory_free_bytes: 22 * GIB })]),
  );
  expect(events).toMatchObject([
    {
      event: "vram_recovered",
      gpu_uuid: "GPU-a",
      detail: { freed_bytes: 6 * GIB, memory_free_bytes: 22 * GIB },
    },
  ]);
});

test("allocator noise and unknown memory are no recovery", () => {
  const before = sample([gpu()]);
  expect(eventsBetween(before, sample([gpu({ memory_used_bytes: 4 * GIB - 1000 })]))).toEqual([]);
  expect(eventsBetween(before, sample([gpu({ memory_used_bytes: null })]))).toEqual([]);
});

test("a foreign process is reported once, an own or invisible one never", () => {
  const process = { pid: 7, memory_bytes: GIB, kind: "compute", name: "other" } as const;
  const foreign = sample([gpu({ processes: [{ ...process, own: false }] })]);
  expect(names(eventsBetween(undefined, foreign))).toEqual(["foreign_process"]);
  expect(eventsBetween(foreign, foreign)).toEqual([]);
  for (const own of [true, null]) {
    expect(eventsBetween(undefined, sample([gpu({ processes: [{ ...process, own }] })]))).toEqual(
      [],
    );
  }
});

test("throttling by heat or power loss is an event, the user's own limits are not", () => {
  const before = sample([gpu({ throttle_reasons: ["gpu_idle", "sw_power_cap"] })]);
  const hot = sample([gpu({ throttle_reasons: ["hw_thermal_slowdown"] })]);
  expect(eventsBetween(undefined, before)).toEqual([]);
  expect(names(eventsBetween(before, hot))).toEqual(["throttle"]);
  expect(eventsBetween(hot, hot)).toEqual([]);
});

test("a device that is lost or no longer listed is reported once", () => {
  const lost = sample([lostGpu(gpu(), "GPU is lost")]);
  expect(eventsBetween(sample([gpu()]), lost)).toMatchObject([
    { event: "gpu_lost", detail: { reason: "GPU is lost" } },
  ]);
  expect(eventsBetween(lost, lost)).toEqual([]);
  expect(names(eventsBetween(sample([gpu()]), sample([])))).toEqual(["gpu_lost"]);
  expect(eventsBetween(lost, sample([]))).toEqual([]);
});
