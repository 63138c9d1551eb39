import { CjmError } from "../errors/index.ts";
import { WIRE_DATA_KEY, WIRE_KIND_KEY } from "../protocol/index.ts";
import { canonicalJson } from "../util/canonical-json.ts";
import { isRecord } from "../util/record.ts";
import { isRef, parseRef, replaceRefs } from "./refs.ts";
import type { Comparison, CompositionNode, CompositionRun, Condition, OutputRef } from "./types.ts";

/** What an upstream node left: a value, or nothing because a `when` skipped it. */
export type Upstream =
  { readonly kind: "value"; readonly value: unknown } | { readonly kind: "absent" };

/** Where markers find their values. */
export interface BindingScope {
  /** Undefined: the node has no result and never said it would do without. */
  upstream(nodeId: string): Upstream | undefined;
  /** The current item of a `for_each` node. */
  readonly item?: { readonly value: unknown; readonly index: number } | undefined;
}

/** Values of a run's completed nodes; with `index`, of that item of `nodeId` too. */
export function scopeOf(run: CompositionRun, nodeId: string, index?: number): BindingScope {
  const items = run.nodeRuns.get(nodeId)?.items;
  return {
    upstream(id) {
      const node = run.nodeRuns.get(id);
      if (node?.state === "completed") return { kind: "value", value: node.result };
      return node?.skipCause === "when" ? { kind: "absent" } : undefined;
    },
    item:
      index === undefined || items === undefined
        ? undefined
        : { value: items.values[index], index },
  };
}

/**
 * A node's kwargs with every marker replaced by its value.
 *
 * @throws {CjmError} `COMPOSITION_BINDING` naming the node and the path of a marker whose value
 *   does not exist.
 */
export function resolveKwargs(
  node: CompositionNode,
  scope: BindingScope,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(node.kwargs).map(([key, value]) => [
      key,
      resolve(value, { node, scope, at: ["kwargs", key] }),
    ]),
  );
}

/**
 * Whether a node's `when` lets it run; true where it has none.
 *
 * A bare marker counts as its value: null, false, 0 and the empty string say no.
 *
 * @throws {CjmError} `COMPOSITION_BINDING` for a missing value or values that have no order.
 */
export function evaluateWhen(node: CompositionNode, scope: BindingScope): boolean {
  if (node.when === undefined) return true;
  return holds(node.when, { node, scope, at: ["when"] });
}

/**
 * The list that a `for_each` node runs over.
 *
 * @throws {CjmError} `COMPOSITION_BINDING` if the source is missing or is not a list.
 */
export function resolveForEach(node: CompositionNode, scope: BindingScope): readonly unknown[] {
  const place: Place = { node, scope, at: ["for_each"] };
  const values = resolve(node.forEach, place);
  if (Array.isArray(values)) return values;
  throw bindingError(place, `is not a list but ${describe(values)}`);
}

/** The value at a dotted path, or undefined where there is none; looks inside tagged values. */
export function valueAt(
  value: unknown,
  path: readonly string[],
): { readonly value: unknown } | undefined {
  let current = value;
  for (const segment of path) {
    const found = memberOf(current, segment);
    if (found === undefined) return undefined;
    current = found.value;
  }
  return { value: current };
}

interface Place {
  readonly node: CompositionNode;
  readonly scope: BindingScope;
  readonly at: readonly (string | number)[];
}

function resolve(value: unknown, place: Place): unknown {
  return replaceRefs(value, (marker, at) => lookUp(marker, { ...place, at }), place.at);
}

function lookUp(marker: OutputRef, place: Place): unknown {
  const target = parseRef(marker);
  if (target?.kind === "node") return lookUpNode(marker, target, place);
  if (target?.kind === "index") return requireItem(marker, place).index;
  if (target?.kind === "item") {
    return pick(requireItem(marker, place).value, target.path, { marker, place });
  }
  throw bindingError(place, `has a marker without a value: "${marker.$ref}"`);
}

function lookUpNode(
  marker: OutputRef,
  target: { readonly node: string; readonly path: readonly string[] },
  place: Place,
): unknown {
  const upstream = place.scope.upstream(target.node);
  if (upstream?.kind === "value") return pick(upstream.value, target.path, { marker, place });
  if (upstream?.kind === "absent" && marker.optional === true) return null;
  throw bindingError(place, `needs the result of "${target.node}", which has none`);
}

function requireItem(
  marker: OutputRef,
  place: Place,
): { readonly value: unknown; readonly index: number } {
  if (place.scope.item !== undefined) return place.scope.item;
  throw bindingError(place, `uses "${marker.$ref}" outside for_each`);
}

function pick(
  value: unknown,
  path: readonly string[],
  { marker, place }: { readonly marker: OutputRef; readonly place: Place },
): unknown {
  const found = valueAt(value, path);
  if (found !== undefined) return found.value;
  throw bindingError(place, `finds nothing at "${marker.$ref}": the result is ${describe(value)}`);
}

function memberOf(value: unknown, segment: string): { readonly value: unknown } | undefined {
  if (Array.isArray(value)) {
    const list: readonly unknown[] = value;
    const isIndex = /^\d+$/u.test(segment) && Number(segment) < list.length;
    return isIndex ? { value: list[Number(segment)] } : undefined;
  }
  if (!isRecord(value)) return undefined;
  const isTagged = typeof value[WIRE_KIND_KEY] === "string" && Object.hasOwn(value, WIRE_DATA_KEY);
  const inside = isTagged ? memberOf(value[WIRE_DATA_KEY], segment) : undefined;
  if (inside !== undefined) return inside;
  return Object.hasOwn(value, segment) ? { value: value[segment] } : undefined;
}

/** The shape of a value in words; never its content. */
function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (!isRecord(value)) return `a ${typeof value}`;
  const keys = Object.keys(value);
  const shown = keys.slice(0, 8).join(", ");
  return `an object with ${keys.length === 0 ? "no keys" : shown}${keys.length > 8 ? ", …" : ""}`;
}

function bindingError(place: Place, problem: string): CjmError {
  const path = place.at.join(".");
  return new CjmError("COMPOSITION_BINDING", `Node "${place.node.id}": ${path} ${problem}`, {
    details: { node: place.node.id, path },
    fieldsInvalid: [path],
  });
}

function holds(condition: Condition, place: Place): boolean {
  if (typeof condition === "boolean") return condition;
  if (isRef(condition)) return Boolean(resolve(condition, place));
  if ("not" in condition) return !holds(condition.not, place);
  if ("all" in condition) return condition.all.every((member) => holds(member, place));
  if ("any" in condition) return condition.any.some((member) => holds(member, place));
  return compares(condition, place);
}

type Compare = (left: unknown, right: unknown, place: Place) => boolean;

const COMPARISONS: Readonly<Record<Exclude<keyof Comparison, "value">, Compare>> = {
  equals: isEqual,
  not_equals: (left, right) => !isEqual(left, right),
  less_than: (left, right, place) => order(left, right, place) < 0,
  at_most: (left, right, place) => order(left, right, place) <= 0,
  greater_than: (left, right, place) => order(left, right, place) > 0,
  at_least: (left, right, place) => order(left, right, place) >= 0,
  in: (left, right, place) => {
    if (Array.isArray(right)) return right.some((member) => isEqual(left, member));
    throw bindingError(place, `looks for a value in ${describe(right)}, which is no list`);
  },
};

function compares(comparison: Comparison, place: Place): boolean {
  const left = resolve(comparison.value, place);
  return Object.entries(COMPARISONS)
    .filter(([operator]) => Object.hasOwn(comparison, operator))
    .every(([operator, compare]) => {
      const operand = new Map<string, unknown>(Object.entries(comparison)).get(operator);
      return compare(left, resolve(operand, place), place);
    });
}

function isEqual(left: unknown, right: unknown): boolean {
  return canonicalJson(left) === canonicalJson(right);
}

function order(left: unknown, right: unknown, place: Place): number {
  if (typeof left === "number" && typeof right === "number") return left - right;
  if (typeof left === "string" && typeof right === "string")
    return left < right ? -1 : Number(left > right);
  throw bindingError(
    place,
    `compares ${describe(left)} with ${describe(right)}, which have no order`,
  );
}
