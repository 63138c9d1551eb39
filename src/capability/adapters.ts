import type { DiscoveredAdapter, DiscoveredManifest } from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import type { AdapterManifest, StructuralSurface } from "../protocol/index.ts";

/** Whether a task adapter fits a tool, and everything it misses where it does not. */
export interface AdapterVerdict {
  readonly compatible: boolean;
  readonly missingMethods: readonly string[];
  readonly missingProperties: readonly string[];
  readonly paramMismatches: readonly {
    readonly method: string;
    readonly required: readonly string[];
    readonly found: readonly string[];
  }[];
  /** One sentence; empty where it fits. */
  readonly reason: string;
}

/** A task adapter that a worker is told to load. */
export interface BoundAdapter {
  readonly name: string;
  readonly task: string;
  /** `module:Class`, importable in the tool's environment. */
  readonly spec: string;
  /** What it offers; undefined where its manifest does not say. */
  readonly methods: readonly string[] | undefined;
}

type Members = AdapterManifest["protocol_members"];

/**
 * Matches what an adapter requires against what a tool has, both as recorded: nothing is loaded.
 *
 * A method fits by name and, where both sides record parameters, if the tool's parameters begin
 * with the adapter's. A tool without a recorded surface fits nothing.
 */
export function matchAdapter(
  members: Members,
  surface: StructuralSurface | null | undefined,
): AdapterVerdict {
  if (surface === null || surface === undefined) {
    const reason = "the tool's manifest records no structural surface; install it again";
    const missingMethods = members.methods.map(({ name }) => name);
    return verdict({ missingMethods, missingProperties: [...members.properties] }, reason);
  }
  const found = new Map(surface.methods.map((method) => [method.name, method]));
  const missingMethods = members.methods.filter(({ name }) => !found.has(name));
  const missingProperties = members.properties.filter((name) => !surface.properties.includes(name));
  const paramMismatches = members.methods.flatMap(({ name, params }) => {
    const tool = found.get(name);
    if (tool === undefined || params === undefined || startsWith(tool.params, params)) return [];
    return [{ method: name, required: params, found: tool.params }];
  });
  return verdict({
    missingMethods: missingMethods.map(({ name }) => name),
    missingProperties,
    paramMismatches,
  });
}

function startsWith(list: readonly string[], prefix: readonly string[]): boolean {
  return prefix.every((param, index) => list[index] === param);
}

function verdict(found: Partial<AdapterVerdict>, why?: string): AdapterVerdict {
  const { missingMethods = [], missingProperties = [], paramMismatches = [] } = found;
  const reasons = [
    ...(why === undefined ? [] : [why]),
    ...(missingMethods.length > 0 ? [`missing methods: ${missingMethods.join(", ")}`] : []),
    ...(missingProperties.length > 0
      ? [`missing properties: ${missingProperties.join(", ")}`]
      : []),
    ...paramMismatches.map(
      ({ method, required, found: has }) =>
        `${method}(${has.join(", ")}) does not begin with (${required.join(", ")})`,
    ),
  ];
  const reason = reasons.join("; ");
  return { compatible: reason === "", missingMethods, missingProperties, paramMismatches, reason };
}

/**
 * The adapters a tool's worker loads: those asked for by name, or by default every one of its
 * environment that fits.
 *
 * @throws {CjmError} `ADAPTER_INCOMPATIBLE` naming the missing members of one that was asked for,
 *   or that there is no such adapter.
 */
export function selectAdapters(
  { name, manifest }: DiscoveredManifest,
  known: ReadonlyMap<string, DiscoveredAdapter>,
  asked: readonly string[] | undefined,
): readonly BoundAdapter[] {
  const surface = manifest.code.structural_surface;
  if (asked !== undefined) return asked.map((adapter) => fitting(adapter));
  const environments = new Set(["", name, manifest.install.conda_env]);
  return [...known.values()]
    .filter((adapter) => environments.has(adapter.manifest.conda_env))
    .filter((adapter) => matchAdapter(adapter.manifest.protocol_members, surface).compatible)
    .map(bound);

  function fitting(wanted: string): BoundAdapter {
    const adapter = known.get(wanted);
    const reason =
      adapter === undefined
        ? `there is none; there are ${[...known.keys()].join(", ") || "no adapters"}`
        : matchAdapter(adapter.manifest.protocol_members, surface).reason;
    if (adapter !== undefined && reason === "") return bound(adapter);
    throw new CjmError(
      "ADAPTER_INCOMPATIBLE",
      `Adapter "${wanted}" does not fit "${name}": ${reason}`,
      { fieldsInvalid: ["adapters"] },
    );
  }
}

function bound({ name, manifest }: DiscoveredAdapter): BoundAdapter {
  const { task_name: task, module, class: className, methods } = manifest;
  return { name, task, spec: `${module}:${className}`, methods };
}

/**
 * The tasks a tool with these adapters serves and the methods of each, where all of them say; an
 * adapter replaces the tool's own of the same task.
 */
export function tasksOf(
  own: Readonly<Record<string, readonly string[]>> | undefined,
  adapters: readonly BoundAdapter[],
): Readonly<Record<string, readonly string[]>> | undefined {
  if (own === undefined) return undefined;
  const tasks: Record<string, readonly string[]> = { ...own };
  for (const { task, methods } of adapters) {
    if (methods === undefined) return undefined;
    tasks[task] = methods;
  }
  return tasks;
}
