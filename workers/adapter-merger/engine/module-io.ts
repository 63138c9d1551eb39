import { MergeFault } from "../fault.ts";
import type { Thin } from "../math/thin.ts";
import type { SafetensorsFile } from "../safetensors/reader.ts";
import type { AdapterMergeSpec, ModuleJob, ModuleSource } from "./jobs.ts";

/** Both factors of one adapter's module, as stored (no scaling), widened to float32. */
export interface Factors {
  readonly source: ModuleSource;
  /** rank x inputs */
  readonly a: Thin;
  /** outputs x rank */
  readonly b: Thin;
}

/**
 * Arrays that a thread uses again for every module: garbage of this size would be collected late
 * and set the peak of the memory.
 */
export class Buffers {
  readonly #held = new Map<string, Float32Array<ArrayBuffer>>();

  /** `length` floats with whatever they held before; valid until the same key is taken again. */
  take(key: string, length: number): Float32Array<ArrayBuffer> {
    const held = this.#held.get(key);
    if (held !== undefined && held.length >= length) return held.subarray(0, length);
    const made = new Float32Array(length);
    this.#held.set(key, made);
    return made;
  }
}

/** Open inputs of a thread. */
export interface Inputs {
  readonly spec: AdapterMergeSpec;
  readonly files: readonly SafetensorsFile[];
  readonly buffers: Buffers;
}

/** Reads a module's factors; names of tensors with NaN or infinity go to `nonFinite`. */
export function loadFactors(
  { spec, files, buffers }: Inputs,
  job: ModuleJob,
  nonFinite: string[],
): readonly Factors[] {
  return job.sources.map((source) => {
    const file = files[source.adapter];
    if (file === undefined) throw new TypeError(`Adapter ${source.adapter} is not open`);
    const a = buffers.take(`a${source.adapter}`, source.rank * job.inputs);
    const b = buffers.take(`b${source.adapter}`, job.outputs * source.rank);
    file.readFloats(file.tensor(source.aName), 0, a);
    file.readFloats(file.tensor(source.bName), 0, b);
    checkFinite(spec, { path: file.path, name: source.aName }, a, nonFinite);
    checkFinite(spec, { path: file.path, name: source.bName }, b, nonFinite);
    return {
      source,
      a: { rows: source.rank, columns: job.inputs, values: a },
      b: { rows: job.outputs, columns: source.rank, values: b },
    };
  });
}

/** A sum of magnitudes is finite exactly when every entry is. */
function checkFinite(
  { allowsNonFinite }: AdapterMergeSpec,
  { path, name }: { path: string; name: string },
  values: Float32Array,
  found: string[],
): void {
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) sum += Math.abs(values[i] ?? 0);
  if (Number.isFinite(sum)) return;
  if (!allowsNonFinite) {
    const message = `Tensor "${name}" of ${path} holds NaN or infinity`;
    throw new MergeFault("FILE_INVALID", "non_finite", message, { tensor: name, path });
  }
  found.push(name);
}
