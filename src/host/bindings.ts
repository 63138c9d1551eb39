import type { CapabilityInstance, CapabilityManager } from "../capability/index.ts";
import type { CallTarget, JobQueue } from "../queue/index.ts";
import type { CapabilityBindings } from "./capability-bindings.ts";

/** Calls an action: submit and wait, or for a streaming action an iterator of its chunks. */
export type BoundAction = (kwargs?: Readonly<Record<string, unknown>>) => BoundCall;

/** Awaited it gives the result, iterated the chunks; a call is one job either way. */
export interface BoundCall<Result = unknown, Chunk = unknown>
  extends PromiseLike<Result>, AsyncIterable<Chunk> {}

/** An action to call, a task whose methods are called, or both where they have one name. */
export type BoundMember = BoundAction & Readonly<Record<string, BoundAction>>;

type UntypedBindings = Readonly<Record<string, Readonly<Record<string, BoundMember>>>>;

/**
 * Instance id to its actions by name. Where `cjm-ctl types` has described the capabilities, exactly
 * those, with the arguments and results of their actions; else any.
 */
export type Bindings = keyof CapabilityBindings extends never
  ? UntypedBindings
  : // oxlint-disable-next-line typescript/no-generated-empty-object-type -- not empty where this is chosen
    Readonly<CapabilityBindings>;

/**
 * `bindings.<instance>.<action>(kwargs)` and `bindings.<instance>.<task>.<method>(kwargs)` for every
 * instance that is loaded, looked up when it is used. Tasks are those of the tool and of the adapters
 * it is loaded with, where their manifests name the methods.
 */
export function createBindings(manager: CapabilityManager, queue: JobQueue): Bindings {
  return new Proxy<Record<string, Readonly<Record<string, BoundMember>>>>(
    {},
    {
      get: (_target, instanceId) =>
        typeof instanceId === "string" && manager.instances.has(instanceId)
          ? membersOf(manager.instance(instanceId), queue)
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

function membersOf(
  { spec }: CapabilityInstance,
  queue: JobQueue,
): Readonly<Record<string, BoundMember>> {
  const { actions = {}, tasks: own } = spec.definition.manifest.code;
  const bound = spec.adapters.map(({ task, methods = [] }) => [task, methods] as const);
  const tasks: Readonly<Record<string, readonly string[]>> = {
    ...own,
    ...Object.fromEntries(bound),
  };
  const names = new Set([...Object.keys(actions), ...Object.keys(tasks)]);
  return Object.fromEntries(
    [...names].map((name) => {
      const member = call(queue, spec.instanceId, { action: name });
      for (const method of tasks[name] ?? []) {
        const value = call(queue, spec.instanceId, { task: name, method });
        // Defined and not assigned: a method may be called "name", which a function has already.
        Object.defineProperty(member, method, { value, enumerable: true });
      }
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- its methods were just added
      return [name, member as BoundMember];
    }),
  );
}

function call(queue: JobQueue, instanceId: string, target: CallTarget): BoundAction {
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
