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

/** Open inputs of a thread. */
export interface Inputs {
  readonly spec: AdapterMergeSpec;
  readonly files: readonly SafetensorsFile[];
}

/** Reads a module's factors; names of tensors with NaN or infinity go to `nonFinite`. */
export function loadFactors(
  { spec, files }: Inputs,
  job: ModuleJob,
  nonFinite: string[],
): readonly Factors[] {
  return job.sources.map((source) => {
    const file = files[source.adapter];
    if (file === undefined) throw new TypeError(`Adapter ${source.adapter} is not open`);
    const a = file.floats(source.aName);
    const b = file.floats(source.bName);
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
