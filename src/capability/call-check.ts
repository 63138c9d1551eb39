import { CjmError } from "../errors/index.ts";
import { type SchemaProblem, validateJsonSchema } from "../protocol/json-schema.ts";
import type { ActionManifest } from "../protocol/index.ts";
import type { CallTarget } from "../queue/executor.ts";
import { closest } from "../util/suggest.ts";
import { tasksOf } from "./adapters.ts";
import type { InstanceSpec } from "./instance-spec.ts";

/** What a call is checked against. */
export type CallSurface = Pick<InstanceSpec, "definition" | "adapters">;

/**
 * The action a call means; undefined where the manifest does not say (a worker of the original)
 * or where the call addresses a task adapter.
 *
 * @throws {CjmError} `ACTION_UNKNOWN` naming the closest known one.
 */
export function findAction(surface: CallSurface, target: CallTarget): ActionManifest | undefined {
  if (target.task !== undefined) {
    checkTask(surface, target);
    return undefined;
  }
  const { code } = surface.definition.manifest;
  const { actions } = code;
  if (actions === undefined) return undefined;
  if (target.action !== undefined) {
    const action = Object.hasOwn(actions, target.action) ? actions[target.action] : undefined;
    if (action !== undefined) return action;
    throw unknown(`${code.name} has no action "${target.action}"`, target.action, actions);
  }
  const names = Object.keys(actions);
  const only = names.length === 1 ? Object.values(actions)[0] : undefined;
  const action = Object.values(actions).find((one) => one.default) ?? only;
  if (action !== undefined) return action;
  throw new CjmError(
    "ACTION_UNKNOWN",
    `${code.name} has no default action; name one of ${names.join(", ")}`,
    { fieldsInvalid: ["action"] },
  );
}

/** Everything wrong with a call's kwargs; empty where no schema is known. */
function kwargProblems(
  surface: CallSurface,
  target: CallTarget,
  kwargs: Readonly<Record<string, unknown>>,
): readonly SchemaProblem[] {
  const action = findAction(surface, target);
  return action === undefined ? [] : validateJsonSchema(action.input_schema, kwargs);
}

/** @throws {CjmError} `CAPABILITY_INPUT` naming every bad field. */
export function checkKwargs(
  surface: CallSurface,
  target: CallTarget,
  kwargs: Readonly<Record<string, unknown>>,
): void {
  const problems = kwargProblems(surface, target, kwargs);
  if (problems.length === 0) return;
  const address = [surface.definition.name, target.task ?? target.action, target.method]
    .filter(Boolean)
    .join(".");
  const list = problems.map(({ path, message }) => `${path || "(input)"}: ${message}`);
  throw new CjmError("CAPABILITY_INPUT", `${address}: ${list.join("; ")}`, {
    fieldsInvalid: problems.map(({ path }) => path),
  });
}

function checkTask(
  { definition, adapters }: CallSurface,
  { task = "", method = "" }: CallTarget,
): void {
  const { code } = definition.manifest;
  const external = adapters.find((adapter) => adapter.task === task);
  const tasks = external === undefined ? code.tasks : tasksOf({}, [external]);
  // Where a manifest does not say, the worker will judge.
  if (tasks === undefined) return;
  const methods = Object.hasOwn(tasks, task) ? tasks[task] : undefined;
  if (methods === undefined) throw unknown(`${code.name} has no task "${task}"`, task, tasks);
  if (!methods.includes(method)) {
    const known = Object.fromEntries(methods.map((name) => [name, true]));
    throw unknown(`Task "${task}" of ${code.name} has no method "${method}"`, method, known);
  }
}

function unknown(what: string, given: string, known: Readonly<Record<string, unknown>>): CjmError {
  const names = Object.keys(known);
  const meant = closest(given, names);
  const hint = meant === undefined ? `it has ${names.join(", ")}` : `did you mean "${meant}"?`;
  return new CjmError("ACTION_UNKNOWN", `${what}; ${hint}`, { fieldsInvalid: ["action"] });
}
