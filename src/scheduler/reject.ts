import type { ResourceShortfall } from "../errors/index.ts";
import type { Context, Verdict } from "./context.ts";
import type { JobRequest } from "./types.ts";

const ADVICE: Readonly<Record<ResourceShortfall["resource"], string>> = {
  gpu_vram_mb:
    "No GPU of this machine is large enough: use a smaller input, batch or context, a quantized model, or a GPU with more memory.",
  system_ram_mb: "Use a smaller input, or close programs that hold memory.",
  disk_mb: "Free disk space, or lower the minimum that is kept free.",
};

/** Fails a job that is not pending any more, or never was. */
export function reject(
  context: Context,
  request: JobRequest,
  { resource, neededMb, availableMb }: Omit<Extract<Verdict, { kind: "reject" }>, "kind">,
): void {
  context.decisions.push({
    type: "reject",
    jobId: request.jobId,
    shortfall: { resource, needed: Math.ceil(neededMb), available: Math.floor(availableMb) },
    advice: ADVICE[resource],
  });
}
