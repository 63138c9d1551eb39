import { BODY_LIMITS, type ActionManifest } from "../protocol/index.ts";
import { NAME_PATTERN } from "../util/ids.ts";
import { MAX_ITEMS } from "./for-each.ts";
import { dependencies, findCycle } from "./graph.ts";
import { inputProblem } from "./inputs.ts";
import { invalidComposition } from "./issues.ts";
import { findRefs, isRef, MAX_DEPTH, parseRef, replaceRefs, type FoundRef } from "./refs.ts";
import { closest } from "../util/suggest.ts";
import { checkAgainstSchema } from "./schema-check.ts";
import type {
  Composition,
  CompositionIssue,
  CompositionLookup,
  CompositionNode,
  InstanceDeclaration,
  InstanceSurface,
} from "./types.ts";

/**
 * Checks a composition completely before anything of it is stored.
 *
 * @throws {CjmError} `COMPOSITION_INVALID` with every issue in `details.issues`.
 */
export function validateComposition(composition: Composition, lookup: CompositionLookup): void {
  const issues = findCompositionIssues(composition, lookup);
  if (issues.length > 0) throw invalidComposition(issues);
}

/**
 * Everything that is wrong with a composition: ids, markers, order, inputs, and against what the
 * host knows the called capabilities, actions and static kwargs. An empty composition is valid.
 */
export function findCompositionIssues(
  composition: Composition,
  lookup: CompositionLookup,
): readonly CompositionIssue[] {
  const ids = new Set(composition.nodes.map(({ id }) => id));
  return [
    ...idIssues(composition),
    ...declarationIssues(composition),
    ...composition.nodes.flatMap((node) => [
      ...markerIssues(node, { ids, composition }),
      ...optionIssues(node),
      ...callIssues(node, composition.instances[node.instance], lookup),
    ]),
    ...cycleIssues(composition),
  ];
}

function idIssues({ nodes }: Composition): readonly CompositionIssue[] {
  const seen = new Set<string>();
  return nodes.flatMap(({ id }, index) => {
    const isRepeated = seen.has(id);
    seen.add(id);
    if (isRepeated) return [{ path: `nodes.${index}.id`, message: `"${id}" is used twice` }];
    if (NAME_PATTERN.test(id) && id !== "__proto__") return [];
    return [
      { path: `nodes.${index}.id`, message: `"${id}": use letters, digits, _ and -, at most 64` },
    ];
  });
}

function declarationIssues({ inputs, instances }: Composition): readonly CompositionIssue[] {
  const defaults = Object.entries(inputs).flatMap(([name, declaration]) => {
    const { default: value } = declaration;
    const problem = value === undefined ? undefined : inputProblem(declaration, value);
    return problem === undefined
      ? []
      : [{ path: `inputs.${name}.default`, message: `the default ${problem}` }];
  });
  const configs = Object.entries(instances).flatMap(([id, { config }]) =>
    findRefs(config, ["instances", id, "config"]).flatMap(({ marker, path }) => {
      const target = parseRef(marker);
      const isKnown = target?.kind === "input" && Object.hasOwn(inputs, target.name);
      const message = `"${marker.$ref}": a configuration may refer to declared inputs only`;
      return isKnown ? [] : [{ path: path.join("."), message }];
    }),
  );
  return [...defaults, ...configs];
}

interface Known {
  readonly ids: ReadonlySet<string>;
  readonly composition: Composition;
}

function markerIssues(node: CompositionNode, known: Known): readonly CompositionIssue[] {
  const inList = findRefs(node.forEach, ["for_each"]);
  const inWhen = findRefs(node.when, ["when"]);
  const inKwargs = findRefs(node.kwargs, ["kwargs"]);
  const hasItem = node.forEach !== undefined;
  return [
    ...[...inList, ...inWhen].flatMap((found) =>
      problemOf(found, node, { ...known, hasItem: false }),
    ),
    ...inKwargs.flatMap((found) => problemOf(found, node, { ...known, hasItem })),
    ...findRefs(node.control, ["control"]).map(({ path }) => ({
      node: node.id,
      path: path.join("."),
      message: "control takes no markers",
    })),
    ...(depthOf(node.kwargs) > MAX_DEPTH
      ? [{ node: node.id, path: "kwargs", message: `nested deeper than ${BODY_LIMITS.depth}` }]
      : []),
  ];
}

function problemOf(
  { marker, path }: FoundRef,
  node: CompositionNode,
  known: Known & { readonly hasItem: boolean },
): readonly CompositionIssue[] {
  const message = extraKeys(marker) ?? markerProblem(marker.$ref, node, known);
  return message === undefined ? [] : [{ node: node.id, path: path.join("."), message }];
}

function markerProblem(
  text: string,
  node: CompositionNode,
  { ids, composition, hasItem }: Known & { readonly hasItem: boolean },
): string | undefined {
  const target = parseRef({ $ref: text });
  if (target === undefined)
    return `"${text}" is no reference; write node.field, $item or $input.name`;
  if (target.kind === "input") {
    const isDeclared = Object.hasOwn(composition.inputs, target.name);
    return isDeclared ? undefined : `"${text}": there is no input "${target.name}"`;
  }
  if (target.kind !== "node")
    return hasItem ? undefined : `"${text}" has a meaning in kwargs of a for_each node only`;
  if (target.node === node.id) return `"${text}" refers to its own node`;
  return ids.has(target.node) ? undefined : `"${text}": there is no node "${target.node}"`;
}

function extraKeys(marker: object): string | undefined {
  const extra = Object.keys(marker).filter((key) => key !== "$ref" && key !== "optional");
  if (extra.length === 0) return undefined;
  return `a reference has no "${extra.join('", "')}"; wrap plain data in {"$literal": …}`;
}

function depthOf(value: unknown, depth = 0): number {
  if (typeof value !== "object" || value === null || depth > MAX_DEPTH) return depth;
  return Math.max(depth, ...Object.values(value).map((member) => depthOf(member, depth + 1)));
}

function optionIssues(node: CompositionNode): readonly CompositionIssue[] {
  const { timeoutMs = 1, retries = 0, priority, forEach } = node;
  const problems: readonly (readonly [string, boolean, string])[] = [
    ["priority", !Number.isSafeInteger(priority), "is not a whole number"],
    ["timeout_seconds", !(timeoutMs > 0), "is not positive"],
    ["retries", !Number.isSafeInteger(retries) || retries < 0, "is not a whole number from 0"],
    [
      "for_each",
      forEach !== undefined && !isRef(forEach) && !Array.isArray(forEach),
      "is neither a reference nor a list",
    ],
    [
      "for_each",
      Array.isArray(forEach) && forEach.length > MAX_ITEMS,
      `has more than ${MAX_ITEMS} items`,
    ],
  ];
  return problems.flatMap(([path, isWrong, message]) =>
    isWrong ? [{ node: node.id, path, message }] : [],
  );
}

function callIssues(
  node: CompositionNode,
  declaration: InstanceDeclaration | undefined,
  lookup: CompositionLookup,
): readonly CompositionIssue[] {
  const surface = lookup.instance(node.instance, declaration);
  const at = (path: string, message: string): readonly CompositionIssue[] => [
    { node: node.id, path, message },
  ];
  if (surface === undefined) {
    const name = declaration?.capability ?? node.instance;
    const meant = closest(name, lookup.names ?? []);
    const hint = meant === undefined ? "" : `; did you mean "${meant}"?`;
    return at("capability", `there is no capability "${name}"${hint}`);
  }
  if (!surface.enabled) return at("capability", `"${node.instance}" is disabled`);
  if (node.task !== undefined || node.method !== undefined) return taskIssues(node, surface);
  if (surface.actions === undefined) return [];
  const action = actionOf(node.action, surface.actions);
  if (action === undefined) {
    const names = Object.keys(surface.actions).join(", ");
    return node.action === undefined
      ? at("action", `"${surface.capability}" has no default action; name one of ${names}`)
      : at("action", `"${surface.capability}" has no action "${node.action}"; it has ${names}`);
  }
  return actionIssues(node, action);
}

/** The action that a call means: the one it names, or the default one. */
export function actionOf(
  name: string | undefined,
  actions: Readonly<Record<string, ActionManifest>>,
): ActionManifest | undefined {
  if (name !== undefined) return Object.hasOwn(actions, name) ? actions[name] : undefined;
  const all = Object.values(actions);
  return all.length === 1 ? all[0] : all.find((action) => action.default);
}

function actionIssues(node: CompositionNode, action: ActionManifest): readonly CompositionIssue[] {
  const open = findRefs(node.kwargs).map(({ path }) => path);
  const kwargs = Object.fromEntries(
    Object.entries(node.kwargs).map(([key, value]) => [
      key,
      replaceRefs(value, (marker) => marker),
    ]),
  );
  const issues = checkAgainstSchema(action.input_schema, kwargs, open).map(({ path, message }) => ({
    node: node.id,
    path: path === "" ? "kwargs" : `kwargs.${path}`,
    message,
  }));
  if (action.streaming) {
    issues.push({ node: node.id, path: "action", message: "a streaming action cannot be a node" });
  }
  const isRepeatable = action.repeatable || Object.hasOwn(node.kwargs, "seed");
  if (node.cache && !isRepeatable) {
    issues.push({
      node: node.id,
      path: "cache",
      message: "the action does not say that it is repeatable; give it a seed or do not cache it",
    });
  }
  return issues;
}

function taskIssues(node: CompositionNode, surface: InstanceSurface): readonly CompositionIssue[] {
  const { task, method, action } = node;
  const at = (path: string, message: string): readonly CompositionIssue[] => [
    { node: node.id, path, message },
  ];
  if (action !== undefined) return at("action", "name an action or a task, not both");
  if (task === undefined) return at("task", "a method needs its task");
  if (method === undefined) return at("method", "a task needs its method");
  if (surface.tasks === undefined) return [];
  const methods = Object.hasOwn(surface.tasks, task) ? surface.tasks[task] : undefined;
  if (methods === undefined) return at("task", `"${surface.capability}" has no task "${task}"`);
  if (methods.includes(method)) return [];
  return at("method", `task "${task}" has no method "${method}"; it has ${methods.join(", ")}`);
}

function cycleIssues(composition: Composition): readonly CompositionIssue[] {
  const graph = new Map(
    composition.nodes.map((node) => {
      const { all } = dependencies(node);
      // A node that needs itself has been reported where its marker stands.
      return [node.id, new Set([...all].filter((id) => id !== node.id))] as const;
    }),
  );
  const cycle = findCycle(graph);
  if (cycle === undefined) return [];
  const [first = ""] = cycle;
  return [{ node: first, path: "", message: `a cycle: ${[...cycle, first].join(" needs ")}` }];
}
