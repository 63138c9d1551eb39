import type { LoraModule, OpenedAdapter } from "./open.ts";

/** One way in which an adapter does not fit the first one. */
export interface Mismatch {
  readonly adapter: number;
  readonly what: string;
}

/**
 * Every way in which the adapters do not fit together. The first one is the measure; modules that
 * only some adapters have are listed unless `allowsMissing`.
 */
export function findMismatches(
  adapters: readonly OpenedAdapter[],
  allowsMissing: boolean,
): readonly Mismatch[] {
  const [first] = adapters;
  if (first === undefined) return [];
  return adapters.flatMap((adapter, index) => {
    const found = [
      ...configMismatches(first, adapter),
      ...moduleMismatches(adapters, adapter, allowsMissing),
    ];
    return found.map((what) => ({ adapter: index, what }));
  });
}

function configMismatches(first: OpenedAdapter, other: OpenedAdapter): string[] {
  const found: string[] = [];
  const [base, otherBase] = [
    first.config.base_model_name_or_path,
    other.config.base_model_name_or_path,
  ];
  // An adapter that does not name its base cannot contradict.
  if (base != null && otherBase != null && base !== otherBase) {
    found.push(`base model "${otherBase}", the first one has "${base}"`);
  }
  const [revision, otherRevision] = [first.config.revision, other.config.revision];
  if (revision != null && otherRevision != null && revision !== otherRevision) {
    found.push(`base revision "${otherRevision}", the first one has "${revision}"`);
  }
  if ((first.config.fan_in_fan_out ?? false) !== (other.config.fan_in_fan_out ?? false)) {
    found.push(`fan_in_fan_out is ${String(other.config.fan_in_fan_out ?? false)}`);
  }
  return found;
}

function moduleMismatches(
  adapters: readonly OpenedAdapter[],
  adapter: OpenedAdapter,
  allowsMissing: boolean,
): string[] {
  const found: string[] = [];
  for (const { modules } of adapters) {
    for (const [name, wanted] of modules) {
      const own = adapter.modules.get(name);
      if (own === undefined && !allowsMissing) found.push(`module ${name} is missing`);
      if (own !== undefined) found.push(...shapeMismatches(name, wanted, own));
    }
  }
  return [...new Set(found)];
}

function shapeMismatches(name: string, wanted: LoraModule, own: LoraModule): string[] {
  const wantedShape = [wanted.outputs, ...wanted.a.shape.slice(1)].join(" x ");
  const ownShape = [own.outputs, ...own.a.shape.slice(1)].join(" x ");
  // Each pair is seen from both sides; the later adapter is the one that is reported.
  return wantedShape === ownShape
    ? []
    : [`module ${name} is ${ownShape}, another one has ${wantedShape}`];
}
