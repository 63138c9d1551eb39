import type { FloatDtype } from "../safetensors/dtype.ts";
import type { FileLayout } from "../safetensors/writer.ts";
import type { Space } from "../adapter/recipe.ts";
import type { Rules } from "./rules.ts";

/** One adapter's part of one module. */
export interface ModuleSource {
  readonly adapter: number;
  readonly aName: string;
  readonly bName: string;
  readonly rank: number;
  readonly scaling: number;
  readonly weight: number;
  readonly density: number;
}

/** One module to merge; plain data, so that it can go to a thread. */
export interface ModuleJob {
  readonly name: string;
  readonly inputs: number;
  readonly outputs: number;
  readonly sources: readonly ModuleSource[];
  readonly lambda: number;
  readonly rank: number;
  readonly energy?: number | undefined;
  readonly aOut: string;
  readonly bOut: string;
  readonly dtypeA: FloatDtype;
  readonly dtypeB: FloatDtype;
}

/** What all modules of one merge share. */
export interface AdapterMergeSpec {
  readonly kind: "adapters";
  readonly space: Space;
  readonly rules: Rules;
  readonly isPeft: boolean;
  readonly isRune: boolean;
  readonly isSlerp: boolean;
  readonly position?: number | undefined;
  readonly gamma: number;
  readonly epsilon: number;
  readonly seed: number;
  readonly allowsNonFinite: boolean;
  readonly files: readonly { readonly path: string; readonly stream: string }[];
  readonly layout: FileLayout;
}

/** What is reported about one module; numbers that a space does not form are null. */
export interface ModuleReport {
  readonly module: string;
  readonly rank: number;
  /** Share of the squared norm that the output rank holds. */
  readonly energy_kept: number | null;
  /** Frobenius norm of the merged delta, after truncation. */
  readonly norm: number | null;
  readonly input_norms: readonly (number | null)[];
  /** Of the entries that any input sets, the share where their signs differ. */
  readonly sign_conflict: number | null;
  /** Share of the sum of magnitudes that pruning left, per adapter. */
  readonly kept_mass: readonly (number | null)[];
  readonly non_finite: readonly string[];
}
