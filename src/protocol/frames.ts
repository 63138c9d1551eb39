import { z } from "zod";
import { PROTOCOL_VERSION } from "./limits.ts";

/** First and only line the host writes on the control stream. */
export const helloFrameSchema = z.object({
  type: z.literal("hello"),
  protocol: z.literal(PROTOCOL_VERSION),
  token: z.string().min(32),
});

const jobId = z.string().nullish();

/** What a worker may write on the control stream, one JSON object a line. */
export const workerFrameSchema = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("ready"),
    protocol: z.int(),
    address: z.string(),
    pid: z.int(),
    name: z.string(),
    version: z.string(),
    features: z.array(z.string()).default([]),
  }),
  z.object({
    type: z.literal("log"),
    ts: z.string(),
    level: z.string(),
    logger: z.string().default(""),
    message: z.string(),
    exc: z.string().nullish(),
    job_id: jobId,
  }),
  z.object({
    type: z.literal("progress"),
    job_id: jobId,
    progress: z.number(),
    message: z.string().default(""),
  }),
  z.object({
    type: z.literal("account"),
    job_id: jobId,
    event_type: z.string(),
    payload: z.record(z.string(), z.unknown()).default({}),
  }),
  z.object({
    type: z.literal("usage"),
    job_id: jobId,
    units: z.record(z.string(), z.number()),
  }),
  z.object({
    type: z.literal("memory"),
    job_id: jobId,
    gpu_peak_mb: z.number().nullish(),
    host_peak_mb: z.number().nullish(),
  }),
  z.object({ type: z.literal("warning"), message: z.string() }),
  z.object({ type: z.literal("dropped"), n: z.int().nonnegative() }),
  z.object({ type: z.literal("bye"), code: z.int() }),
]);
export type WorkerFrame = z.output<typeof workerFrameSchema>;
export type WorkerFrameInput = z.input<typeof workerFrameSchema>;
export type ReadyFrame = Extract<WorkerFrame, { type: "ready" }>;
