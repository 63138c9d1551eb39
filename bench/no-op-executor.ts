import type { InstanceSurface } from "../src/composition/index.ts";
import type {
  CallInputs,
  ExecutableCall,
  ExecutionEvents,
  ExecutionOutcome,
  Executor,
  InstanceChange,
  InstanceFacts,
  ResourceProbe,
} from "../src/queue/index.ts";

const PEAKS = { gpuMb: {}, hostMb: 50, cpuPercent: 1, isAlone: true };

/** Workers that answer at once: what is left is the queue. */
export class NoOpExecutor implements Executor {
  readonly #facts: InstanceFacts;
  /** While set, calls wait for it. */
  gate: Promise<void> | null = null;

  constructor(maxConcurrentRequests: number) {
    this.#facts = {
      instanceId: "noop",
      capability: "noop",
      version: "1.0.0",
      isEnabled: true,
      configHash: "sha256:0",
      resourceConfigHash: "sha256:0",
      codeHash: null,
      maxConcurrentRequests,
    };
  }

  facts(): InstanceFacts {
    return this.#facts;
  }

  names(): readonly string[] {
    return [];
  }

  check(): { isStreaming: boolean } {
    return { isStreaming: false };
  }

  inputs(): CallInputs {
    return { config: {}, configSchema: null, inputSchema: null };
  }

  async execute(
    call: ExecutableCall,
    events: ExecutionEvents,
    _signal: AbortSignal,
  ): Promise<ExecutionOutcome> {
    events.sent({ workerSessionId: "session", loadMs: 0 });
    if (this.gate !== null) await this.gate;
    const result = { n: call.kwargs["n"] ?? null };
    return { result, usage: {}, workerSessionId: "session", peaks: PEAKS };
  }

  watchInstances(listener: (change: InstanceChange) => void): () => void {
    const { capability, instanceId, maxConcurrentRequests } = this.#facts;
    listener({ instanceId, capability, state: "ready", gpuUuid: null, maxConcurrentRequests });
    return () => undefined;
  }

  surface(): InstanceSurface {
    return { capability: "noop", enabled: true };
  }

  declare(): void {
    // Everything is known already.
  }

  async release(): Promise<void> {
    await Promise.resolve();
  }

  async end(): Promise<void> {
    await Promise.resolve();
  }
}

/** A machine on which everything fits. */
export const AMPLE: ResourceProbe = {
  snapshot: () => ({ gpus: null, gpuModel: null, ramFreeMb: 1e6, diskFreeMb: 1e6, instances: [] }),
  onChange: () => () => undefined,
};
