import { type CapabilityInstance, type CapabilityManager, tasksOf } from "../capability/index.ts";
import type { JobQueue } from "../queue/index.ts";
import type { CapabilityBindings } from "./capability-bindings.ts";

/** Calls an action: submit and wait, or for a streaming action an iterator of its chunks. */
export type BoundAction = (kwargs?: Readonly<Record<string, unknown>>) => BoundCall;

/** Awaited it gives the result, iterated the chunks; a call is one job either way. */
export interface BoundCall<Result = unknown, Chunk = unknown>
  extends PromiseLike<Result>, AsyncIterable<Chunk> {}

/** The methods of an instance's task adapters that are known, by task. */
export type BoundTasks = Readonly<Record<string, Readonly<Record<string, BoundAction>>>>;

type BoundInstance = Readonly<Record<string, BoundAction>> & { readonly tasks: BoundTasks };
type UntypedBindings = Readonly<Record<string, BoundInstance>>;
type Target = { readonly action: string } | { readonly task: string; readonly method: string };

/**
 * Instance id to its actions by name. Where `cjm-ctl types` has described the capabilities, exactly
 * those, with the arguments and results of their actions; else any.
 */
export type Bindings = keyof CapabilityBindings extends never
  ? UntypedBindings
  : // oxlint-disable-next-line typescript/no-generated-empty-object-type -- not empty where this is chosen
    Readonly<CapabilityBindings>;

/**
 * `bindings.<instance>.<action>(kwargs)` and `.tasks.<task>.<method>(kwargs)` for every instance that is loaded, looked up when it is
 * used.
 */
export function createBindings(manager: CapabilityManager, queue: JobQueue): Bindings {
  return new Proxy<Record<string, BoundInstance>>(
    {},
    {
      get: (_target, instanceId) =>
        typeof instanceId === "string" && manager.instances.has(instanceId)
          ? callsOf(manager.instance(instanceId), queue)
          : undefined,
      has: (_target, instanceId) => manager.instances.has(String(instanceId)),
      ownKeys: () => [...manager.instances.keys()],
      getOwnPropertyDescriptor: (_target, instanceId) =>
        manager.instances.has(String(instanceId))
          ? { enumerable: true, configurable: true }
          : undefined,
    },
  );
}

function callsOf({ spec }: CapabilityInstance, queue: JobQueue): BoundInstance {
  const { code } = spec.definition.manifest;
  const bind = (target: Target): BoundAction => boundCall(queue, spec.instanceId, target);
  const known = spec.adapters.filter(({ methods }) => methods !== undefined);
  const tasks: Record<string, Readonly<Record<string, BoundAction>>> = {};
  for (const [task, methods] of Object.entries(tasksOf(code.tasks ?? {}, known) ?? {})) {
    tasks[task] = boundBy(methods, (method) => bind({ task, method }));
  }
  // An action may be called tasks; it is then what the name means.
  const actions = boundBy(Object.keys(code.actions ?? {}), (action) => bind({ action }));
  return Object.assign({ tasks }, actions);
}

function boundBy(
  names: readonly string[],
  bind: (name: string) => BoundAction,
): Readonly<Record<string, BoundAction>> {
  return Object.fromEntries(names.map((name) => [name, bind(name)]));
}

function boundCall(queue: JobQueue, instanceId: string, target: Target): BoundAction {
  return (kwargs = {}) => ({
    // oxlint-disable-next-line unicorn/no-thenable -- awaiting the call is what it is for
    then: (resolve, reject) =>
      queue
        .submit(instanceId, kwargs, target)
        .then((handle) => handle.result())
        .then(resolve, reject),
    async *[Symbol.asyncIterator]() {
      yield* await queue.submitStream(instanceId, kwargs, target);
    },
  });
}
