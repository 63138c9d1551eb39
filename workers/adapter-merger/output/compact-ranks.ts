import { closeSync, openSync, readSync } from "node:fs";
import type { ModuleJob, ModuleReport } from "../engine/jobs.ts";
import { elementBytes } from "../safetensors/dtype.ts";
import { elementCount, type TensorSpec } from "../safetensors/header.ts";
import { createFile, TensorSink, type FileLayout } from "../safetensors/writer.ts";

const CHUNK_BYTES = 1 << 20;

/**
 * Copies a weights file whose tensors have room for more rank than they use into one without the
 * slack. Each tensor's used part lies at the front of its slot.
 */
export function compactRanks(
  spool: FileLayout,
  path: string,
  {
    tensors,
    jobs,
    modules,
  }: {
    readonly tensors: readonly TensorSpec[];
    readonly jobs: readonly ModuleJob[];
    readonly modules: readonly ModuleReport[];
  },
): void {
  const ranks = new Map<string, number>();
  for (const [i, { aOut, bOut }] of jobs.entries()) {
    const rank = modules[i]?.rank ?? 0;
    ranks.set(aOut, rank).set(bOut, rank);
  }
  const sidesA = new Set(jobs.map(({ aOut }) => aOut));
  const specs = tensors.map((spec) => {
    const rank = ranks.get(spec.name) ?? 0;
    const [rows = 0, columns = 0, ...rest] = spec.shape;
    const shape = sidesA.has(spec.name) ? [rank, columns, ...rest] : [rows, rank, ...rest];
    return { ...spec, shape };
  });
  const layout = createFile(path, specs, { format: "pt" });
  using sink = new TensorSink(layout);
  const descriptor = openSync(spool.path, "r");
  const buffer = Buffer.alloc(CHUNK_BYTES);
  try {
    for (const { name, dtype, shape } of specs) {
      const bytes = elementCount(shape) * elementBytes(dtype);
      const from = spool.dataStart + (spool.tensors.get(name)?.start ?? 0);
      for (let done = 0; done < bytes;) {
        const got = readSync(
          descriptor,
          buffer,
          0,
          Math.min(CHUNK_BYTES, bytes - done),
          from + done,
        );
        sink.writeBytes(name, done, buffer.subarray(0, got));
        done += got;
      }
    }
  } finally {
    closeSync(descriptor);
  }
}
