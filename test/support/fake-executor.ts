import type { InstanceDeclaration, InstanceSurface } from "../../src/composition/index.ts";
import { CjmError } from "../../src/errors/index.ts";
import type {
  CallInputs,
  CallTarget,
  ExecutableCall,
  ExecutionEvents,
  ExecutionOutcome,
  Executor,
  InstanceChange,
  InstanceFacts,
  ResourceProbe,
  ResourceSnapshot,
} from "../../src/queue/index.ts";

/** One call that has reached its worker. */
export interface FakeCall extends ExecutableCall {
  readonly events: ExecutionEvents;
  readonly signal: AbortSignal;
}

/** What a worker does with a call; what it throws is the call's failure. */
export type Work = (call: FakeCall) => unknown;

export interface FakeInstance {
  readonly work: Work;
  readonly capability?: string;
  readonly maxConcurrentRequests?: number;
  readonly isStreaming?: boolean;
  readonly isEnabled?: boolean;
  readonly codeHash?: string | null;
  readonly configHash?: string;
  readonly isRepeatable?: boolean;
  readonly inputSchema?: Readonly<Record<string, unknown>>;
  readonly peaks?: Partial<ExecutionOutcome["peaks"]>;
  readonly usage?: Readonly<Record<string, number>>;
}

interface Session {
  readonly id: string;
  readonly died: PromiseWithResolvers<never>;
  readonly calls: Set<string>;
}

interface Slot {
  spec: FakeInstance;
  state: InstanceChange["state"];
  gpuUuid: string | null;
  session: Session | null;
}

/**
 * The whole `Executor` port in this process: workers that load, run calls, die and are ended, each
 * doing what the test says. It announces every change of state, as the real one does.
 */
export class FakeExecutor implements Executor {
  /** Every call that was sent, in order. */
  readonly calls: FakeCall[] = [];
  /** Every worker that was ended and why. */
  readonly ended: { readonly instanceId: string; readonly reason: string }[] = [];
  readonly released: { readonly instanceId: string; readonly level: string }[] = [];
  /** Called by `release`; a test changes the probe here. */
  onRelease: (instanceId: string, level: string) => void = () => undefined;
  /** Called before a worker is ready; a rejection is a failed start. */
  onLoad: (instanceId: string) => Promise<void> = () => Promise.resolve();
  readonly #slots = new Map<string, Slot>();
  readonly #listeners = new Set<(change: InstanceChange) => void>();
  readonly #waiting = new Set<() => void>();
  #sessions = 0;

  add(instanceId: string, spec: FakeInstance | Work): this {
    const given = typeof spec === "function" ? { work: spec } : spec;
    this.#slots.set(instanceId, { spec: given, state: "absent", gpuUuid: null, session: null });
    return this;
  }

  /** Resolves when `count` calls have been sent in all. */
  async sent(count: number): Promise<FakeCall> {
    while (this.calls.length < count) {
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
      });
    }
    return this.calls[count - 1] as FakeCall;
  }

  facts(instanceId: string): InstanceFacts {
    const { spec } = this.#slot(instanceId);
    return {
      instanceId,
      capability: spec.capability ?? instanceId,
      version: "1.0.0",
      isEnabled: spec.isEnabled ?? true,
      configHash: spec.configHash ?? "sha256:config",
      resourceConfigHash: spec.configHash ?? "sha256:config",
      codeHash: spec.codeHash ?? null,
      maxConcurrentRequests: spec.maxConcurrentRequests ?? 1,
    };
  }

  names(): readonly string[] {
    return [...this.#slots.keys()];
  }

  check(
    instanceId: string,
    _target: CallTarget,
    kwargs: Readonly<Record<string, unknown>>,
  ): { isStreaming: boolean } {
    const { spec } = this.#slot(instanceId);
    if ("bad" in kwargs) {
      throw new CjmError("CAPABILITY_INPUT", "bad: not allowed", { fieldsInvalid: ["bad"] });
    }
    return { isStreaming: spec.isStreaming ?? false };
  }

  inputs(instanceId: string): CallInputs {
    const { configHash, inputSchema } = this.#slot(instanceId).spec;
    return { config: { configHash }, configSchema: null, inputSchema: inputSchema ?? null };
  }

  async execute(
    call: ExecutableCall,
    events: ExecutionEvents,
    signal: AbortSignal,
  ): Promise<ExecutionOutcome> {
    const slot = this.#slot(call.instanceId);
    const session = slot.session ?? (await this.#load(call, slot, signal));
    const isAlone = session.calls.size === 0;
    session.calls.add(call.jobId);
    try {
      events.sent({ workerSessionId: session.id, loadMs: 0 });
      const sent = { ...call, events, signal };
      this.calls.push(sent);
      for (const wake of this.#waiting) wake();
      this.#waiting.clear();
      const result = await Promise.race([slot.spec.work(sent), session.died.promise]);
      const peaks = { gpuMb: {}, hostMb: 50, cpuPercent: 10, isAlone, ...slot.spec.peaks };
      return { result, usage: slot.spec.usage ?? {}, workerSessionId: session.id, peaks };
    } finally {
      session.calls.delete(call.jobId);
    }
  }

  watchInstances(listener: (change: InstanceChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  surface(instanceId: string, declaration?: InstanceDeclaration): InstanceSurface | undefined {
    const spec = this.#slots.get(declaration?.capability ?? instanceId)?.spec;
    if (spec === undefined) return undefined;
    const action = {
      description: "",
      input_schema: {},
      output_schema: {},
      default: true,
      streaming: spec.isStreaming ?? false,
      repeatable: spec.isRepeatable ?? false,
    };
    return {
      capability: spec.capability ?? instanceId,
      enabled: spec.isEnabled ?? true,
      actions: { run: action },
    };
  }

  declare(instanceId: string, { capability }: InstanceDeclaration): void {
    if (this.#slots.has(instanceId)) return;
    const { spec } = this.#slot(capability);
    this.add(instanceId, { ...spec, capability });
  }

  async release(instanceId: string, level: string): Promise<void> {
    this.released.push({ instanceId, level });
    await Promise.resolve();
    this.onRelease(instanceId, level);
  }

  async end(instanceId: string, reason: string): Promise<void> {
    this.ended.push({ instanceId, reason });
    this.#die(
      instanceId,
      new CjmError("WORKER_EXITED", reason, { details: { isEndedByHost: true } }),
    );
    await Promise.resolve();
  }

  /** The worker dies by itself. */
  crash(instanceId: string): void {
    this.#die(instanceId, new CjmError("WORKER_EXITED", `${instanceId} was killed by SIGKILL`));
  }

  #die(instanceId: string, error: CjmError): void {
    const slot = this.#slot(instanceId);
    const { session } = slot;
    if (session === null) return;
    slot.session = null;
    session.died.reject(error);
    this.#change(instanceId, slot, "absent");
  }

  async #load(call: ExecutableCall, slot: Slot, signal: AbortSignal): Promise<Session> {
    slot.gpuUuid = call.gpuUuid;
    this.#change(call.instanceId, slot, "loading");
    await this.onLoad(call.instanceId);
    // Two first calls load one worker.
    if (slot.session !== null) return slot.session;
    if (signal.aborted) {
      this.#change(call.instanceId, slot, "absent");
      throw new CjmError("CAPABILITY_CANCELLED", "Cancelled before the call was sent");
    }
    this.#sessions += 1;
    const died = Promise.withResolvers<never>();
    died.promise.catch(() => undefined);
    slot.session = { id: `session-${this.#sessions}`, died, calls: new Set() };
    this.#change(call.instanceId, slot, "ready");
    return slot.session;
  }

  #change(instanceId: string, slot: Slot, state: InstanceChange["state"]): void {
    slot.state = state;
    const { capability, maxConcurrentRequests } = this.facts(instanceId);
    for (const listener of this.#listeners) {
      listener({ instanceId, capability, state, gpuUuid: slot.gpuUuid, maxConcurrentRequests });
    }
  }

  #slot(instanceId: string): Slot {
    const slot = this.#slots.get(instanceId);
    if (slot !== undefined) return slot;
    throw new CjmError("CAPABILITY_UNKNOWN", `No capability is called "${instanceId}"`);
  }
}

/** The whole `ResourceProbe` port; a test sets what the machine has and announces it. */
export class FakeProbe implements ResourceProbe {
  now: ResourceSnapshot = {
    gpus: null,
    gpuModel: null,
    ramFreeMb: 32_000,
    diskFreeMb: 100_000,
    instances: [],
  };
  readonly #listeners = new Set<() => void>();

  snapshot(): ResourceSnapshot {
    return this.now;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  set(change: Partial<ResourceSnapshot>): void {
    this.now = { ...this.now, ...change };
    for (const listener of this.#listeners) listener();
  }
}

/** Rejects as a worker does that listens to its cancel. */
export async function untilCancelled({ signal }: FakeCall): Promise<never> {
  const stopped = Promise.withResolvers<never>();
  const stop = (): void => {
    stopped.reject(new CjmError("CAPABILITY_CANCELLED", "The worker stopped the call"));
  };
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  return await stopped.promise;
}

/** A worker that ignores its cancel. */
export async function forever(): Promise<never> {
  return await Promise.withResolvers<never>().promise;
}
