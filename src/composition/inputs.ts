import { CjmError } from "../errors/index.ts";
import { canonicalJson } from "../util/canonical-json.ts";
import { isRecord } from "../util/record.ts";
import { valueAt } from "./binding.ts";
import { invalidComposition } from "./issues.ts";
import { isRef, parseRef, rewriteRefs } from "./refs.ts";
import type {
  Composition,
  CompositionIssue,
  CompositionNode,
  Condition,
  InputDeclaration,
  InputType,
  OutputRef,
} from "./types.ts";

const IS_TYPE: Readonly<Record<InputType, (value: unknown) => boolean>> = {
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number" && Number.isFinite(value),
  integer: (value) => Number.isSafeInteger(value),
  boolean: (value) => typeof value === "boolean",
  array: (value) => Array.isArray(value),
  object: isRecord,
};

/** What is wrong with a value for a declared input, or undefined. */
export function inputProblem(declaration: InputDeclaration, value: unknown): string | undefined {
  if (!IS_TYPE[declaration.type](value)) return `is not of type ${declaration.type}`;
  const { options } = declaration;
  if (options === undefined) return undefined;
  const isOption = options.some((option) => canonicalJson(option) === canonicalJson(value));
  return isOption ? undefined : `is none of ${options.map((o) => JSON.stringify(o)).join(", ")}`;
}

/**
 * The value of an input from the text of a command line: the text itself for a string, JSON for
 * every other type.
 *
 * @throws {CjmError} `COMPOSITION_INVALID` naming the input.
 */
export function parseInputText(name: string, declaration: InputDeclaration, text: string): unknown {
  if (declaration.type === "string") return text;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new CjmError("COMPOSITION_INVALID", `Input ${name} is not of type ${declaration.type}`, {
      cause,
      fieldsInvalid: [`inputs.${name}`],
    });
  }
}

/**
 * The composition with every `$input` marker, in nodes and in instance configurations, replaced by
 * the given value or the default.
 *
 * @throws {CjmError} `COMPOSITION_INVALID` with every input that is unknown, missing or wrong.
 */
export function bindInputs(
  composition: Composition,
  values: Readonly<Record<string, unknown>>,
): Composition {
  const bound = new Map([...defaultsOf(composition), ...Object.entries(values)]);
  const issues = valueIssues(composition, bound);
  const bind = (marker: OutputRef, place: Place): unknown => {
    const target = parseRef(marker);
    if (target?.kind !== "input") return marker;
    const found = bound.has(target.name) ? valueAt(bound.get(target.name), target.path) : undefined;
    if (found === undefined) {
      const message = `there is no value for "${marker.$ref}"`;
      // An input without a value has been reported by its own name.
      if (bound.has(target.name)) issues.push({ ...place, message });
      return null;
    }
    return found.value;
  };
  const instances = Object.entries(composition.instances).map(([id, declaration]) => {
    const place = { path: `instances.${id}.config` };
    const config = bindRecord(declaration.config ?? {}, (marker) => bind(marker, place));
    return [id, { ...declaration, config }] as const;
  });
  const nodes = composition.nodes.map((node) => bindNode(node, bind));
  if (issues.length > 0) throw invalidComposition(issues);
  return { ...composition, nodes, instances: Object.fromEntries(instances) };
}

interface Place {
  readonly node?: string;
  readonly path: string;
}
type Bind = (marker: OutputRef, place: Place) => unknown;

function defaultsOf({ inputs }: Composition): readonly (readonly [string, unknown])[] {
  return Object.entries(inputs).flatMap(([name, { default: value }]) =>
    value === undefined ? [] : [[name, value] as const],
  );
}

function valueIssues(
  { inputs }: Composition,
  bound: ReadonlyMap<string, unknown>,
): CompositionIssue[] {
  const unknown = [...bound.keys()]
    .filter((name) => !Object.hasOwn(inputs, name))
    .map((name) => ({ path: `inputs.${name}`, message: "is not an input of this composition" }));
  const wrong = Object.entries(inputs).flatMap(([name, declaration]) => {
    const message = bound.has(name)
      ? inputProblem(declaration, bound.get(name))
      : "has no default, so it must be given";
    return message === undefined ? [] : [{ path: `inputs.${name}`, message }];
  });
  return [...unknown, ...wrong];
}

function bindNode(node: CompositionNode, bind: Bind): CompositionNode {
  const inPlace =
    (path: string) =>
    (marker: OutputRef): unknown =>
      asData(marker, bind(marker, { node: node.id, path }));
  const { when, forEach } = node;
  return {
    ...node,
    kwargs: bindRecord(node.kwargs, inPlace("kwargs")),
    ...(when === undefined ? {} : { when: bindCondition(when, inPlace("when")) }),
    ...(forEach === undefined ? {} : { forEach: bindList(forEach, inPlace("for_each")) }),
  };
}

/** A given value is data: nothing that looks like a marker inside it is one. */
function asData(marker: OutputRef, value: unknown): unknown {
  return value === marker || typeof value !== "object" || value === null
    ? value
    : { $literal: value };
}

function bindRecord(
  record: Readonly<Record<string, unknown>>,
  bind: (marker: OutputRef) => unknown,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(record).map(([key, value]) => [key, rewriteRefs(value, bind)]),
  );
}

function bindList(
  list: OutputRef | readonly unknown[],
  bind: (marker: OutputRef) => unknown,
): OutputRef | readonly unknown[] {
  const bound = rewriteRefs(list, bind);
  if (isRef(bound)) return bound;
  if (isRecord(bound) && Array.isArray(bound["$literal"])) {
    return bound["$literal"].map((value: unknown) => ({ $literal: value }));
  }
  const members: readonly unknown[] = Array.isArray(bound) ? bound : [];
  return members;
}

function bindCondition(condition: Condition, bind: (marker: OutputRef) => unknown): Condition {
  if (typeof condition === "boolean") return condition;
  if (isRef(condition)) {
    const bound = bind(condition);
    return isRef(bound) ? bound : Boolean(bound);
  }
  const recur = (member: Condition): Condition => bindCondition(member, bind);
  if ("not" in condition) return { not: recur(condition.not) };
  if ("all" in condition) return { all: condition.all.map(recur) };
  if ("any" in condition) return { any: condition.any.map(recur) };
  return { ...condition, ...bindRecord({ ...condition }, bind) };
}
