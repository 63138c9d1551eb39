import type { CapabilityInstance, CapabilityManager } from "../capability/index.ts";
import type { JobQueue } from "../queue/index.ts";
import type { CapabilityBindings } from "./capability-bindings.ts";

/** Calls an action: submit and wait, or for a streaming action an iterator of its chunks. */
export type BoundAction = (kwargs?: Readonly<Record<string, unknown>>) => BoundCall;

/** Awaited it gives the result, iterated the chunks; a call is one job either way. */
export interface BoundCall<Result = unknown, Chunk = unknown>
  extends PromiseLike<Result>, AsyncIterable<Chunk> {}

type UntypedBindings = Readonly<Record<string, Readonly<Record<string, BoundAction>>>>;

/**
 * Instance id to its actions by name. Where `cjm-ctl types` has described the capabilities, exactly
 * those, with the arguments and results of their actions; else any.
 */
export type Bindings = keyof CapabilityBindings extends never
  ? UntypedBindings
  : // oxlint-disable-next-line typescript/no-generated-empty-object-type -- not empty where this is chosen
    Readonly<CapabilityBindings>;

/**
 * `bindings.<instance>.<action>(kwargs)` for every instance that is loaded, looked up when it is
 * used.
 */
export function createBindings(manager: CapabilityManager, queue: JobQueue): Bindings {
  return new Proxy<Record<string, Readonly<Record<string, BoundAction>>>>(
    {},
    {
      get: (_target, instanceId) =>
        typeof instanceId === "string" && manager.instances.has(instanceId)
          ? actionsOf(manager.instance(instanceId), queue)
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

function actionsOf(
  { spec }: CapabilityInstance,
  queue: JobQueue,
): Readonly<Record<string, BoundAction>> {
  const names = Object.keys(spec.definition.manifest.code.actions ?? {});
  return Object.fromEntries(
    names.map((action) => [
      action,
      (kwargs: Readonly<Record<string, unknown>> = {}): BoundCall => ({
        // oxlint-disable-next-line unicorn/no-thenable -- awaiting the call is what it is for
        then: (resolve, reject) =>
          queue
            .submit(spec.instanceId, kwargs, { action })
            .then((handle) => handle.result())
            .then(resolve, reject),
        async *[Symbol.asyncIterator]() {
          yield* await queue.submitStream(spec.instanceId, kwargs, { action });
        },
      }),
    ]),
  );
}
