import { z } from "cjm-substrate/worker";

const bytes = z.int().nonnegative();
/** UUID of a device of the script, or its position. */
const gpuRef = z.union([z.string(), z.int().nonnegative()]);

/** What may be set on a device; a member that is absent keeps its value, null means unavailable. */
const deviceState = {
  /** In use by nothing that has a pid here (another machine's view, the display, the driver). */
  foreign_bytes: bytes.optional(),
  processes: z
    .array(
      z.strictObject({
        pid: z.int(),
        bytes: bytes.nullable(),
        name: z.string().optional(),
        kind: z.enum(["compute", "graphics", "both"]).default("compute"),
      }),
    )
    .nullable()
    .optional(),
  utilization_percent: z.number().min(0).max(100).nullable().optional(),
  temperature_celsius: z.number().nullable().optional(),
  power_watts: z.number().nonnegative().nullable().optional(),
  throttle_reasons: z.array(z.string()).nullable().optional(),
  lost: z.boolean().optional(),
};

export const scriptSchema = z.strictObject({
  gpus: z
    .array(
      z.strictObject({
        uuid: z.string().min(1),
        name: z.string().default("Simulated GPU"),
        memory_total_bytes: bytes,
        memory_reserved_bytes: bytes.default(0),
      }),
    )
    .default([]),
  /** Each entry changes one device from `at_ms` after the source was opened. */
  timeline: z
    .array(z.strictObject({ at_ms: z.number().nonnegative(), gpu: gpuRef, ...deviceState }))
    .default([]),
  /** Starts the timeline again after this time; without it the last state stays. */
  repeat_ms: z.number().positive().optional(),
  /** Folder of JSON files that other processes write; relative to the script. */
  allocations: z.string().optional(),
  /** How long memory stays in use after the process that held it is gone, as real drivers do. */
  recovery_lag_ms: z.number().nonnegative().default(0),
});
export type Script = z.output<typeof scriptSchema>;
export type TimelineEntry = Script["timeline"][number];

const allocation = z.object({ gpu: gpuRef, bytes });

/** One file of the folder: what a process holds, or a change to a device. */
export const publishedSchema = z.union([
  z.object({
    pid: z.int().positive(),
    /** `readlink /proc/self/ns/pid` of the writer; needed by a process in a PID namespace. */
    pid_namespace: z.string().nullish(),
    name: z.string().optional(),
    kind: z.enum(["compute", "graphics", "both"]).default("compute"),
    allocations: z.array(allocation),
  }),
  z.object({ gpu: gpuRef, ...deviceState }),
]);
export type Published = z.output<typeof publishedSchema>;
export type PublishedProcess = Extract<Published, { pid: number }>;
