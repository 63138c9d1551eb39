import type { ModuleReport } from "../engine/jobs.ts";
import type { TensorReport } from "../engine/model-task.ts";

/** The part of a report that an answer carries; everything else is in merge_report.json. */
export interface Summary {
  readonly modules: number;
  readonly sign_conflict: number | null;
  readonly kept_mass: (number | null)[];
  readonly energy_kept: number | null;
  readonly rank_min: number | null;
  readonly rank_max: number | null;
  readonly non_finite: string[];
  readonly notes: string[];
}

const NAMES_MAX = 100;

export function adapterSummary(
  modules: readonly ModuleReport[],
  inputs: number,
  notes: readonly string[],
): Summary {
  const ranks = modules.map(({ rank }) => rank);
  return {
    modules: modules.length,
    sign_conflict: mean(modules.map((module) => module.sign_conflict)),
    kept_mass: Array.from({ length: inputs }, (_, i) =>
      mean(modules.map(({ kept_mass: kept }) => kept[i] ?? null)),
    ),
    energy_kept: energyKept(modules),
    rank_min: Math.min(...ranks),
    rank_max: Math.max(...ranks),
    non_finite: modules.flatMap((module) => module.non_finite).slice(0, NAMES_MAX),
    notes: [...notes],
  };
}

export function modelSummary(
  tensors: readonly TensorReport[],
  inputs: number,
  notes: readonly string[],
): Summary {
  return {
    modules: tensors.filter(({ merged }) => merged).length,
    sign_conflict: mean(tensors.map((tensor) => tensor.sign_conflict)),
    kept_mass: Array.from({ length: inputs }, (_, i) =>
      mean(tensors.map(({ kept_mass: kept }) => kept[i] ?? null)),
    ),
    energy_kept: null,
    rank_min: null,
    rank_max: null,
    non_finite: tensors.flatMap((tensor) => tensor.non_finite).slice(0, NAMES_MAX),
    notes: [...notes],
  };
}

function mean(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}

/** Over all modules together: a large module counts by its norm. */
function energyKept(modules: readonly ModuleReport[]): number | null {
  let kept = 0;
  let total = 0;
  let isExact = true;
  for (const { energy_kept: share, norm } of modules) {
    if (share === null) return null;
    if (share !== 1) isExact = false;
    if (norm === null || share === 0) continue;
    kept += norm ** 2;
    total += norm ** 2 / share;
  }
  return isExact || total === 0 ? 1 : kept / total;
}
