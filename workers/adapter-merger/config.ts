import { availableParallelism } from "node:os";
import { z } from "cjm-substrate/worker";

const DEFAULT_THREADS_MAX = 4;

export const configSchema = z.strictObject({
  threads: z
    .int()
    .min(1)
    .max(64)
    .default(() => Math.min(DEFAULT_THREADS_MAX, availableParallelism()))
    .describe("Merge threads where a call names none. The number changes no byte of a result."),
  cache_entries: z
    .int()
    .min(0)
    .default(64)
    .describe("Results kept for a repeat of the same recipe, as hard links; 0 keeps none."),
  cache_mb: z
    .int()
    .min(0)
    .default(50_000)
    .describe("Megabytes of results kept for a repeat, by size of their files; the newest stay."),
});
export type MergerConfig = z.output<typeof configSchema>;
