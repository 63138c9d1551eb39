import { CjmError } from "../errors/index.ts";
import { newId } from "../util/ids.ts";
import type { ChunkChannel } from "./chunk-channel.ts";
import type { CallTarget } from "./executor.ts";
import { type JobEntry, type JobSpec, newEntry } from "./job.ts";
import type { RunLoop } from "./run-loop.ts";

/** Who submits and why; stamped on every row of a job. */
export interface RunContext {
  /** Correlates jobs of one run of the caller. */
  readonly runId?: string | undefined;
  /** Who or what initiated the work. */
  readonly actor?: string | undefined;
}

export interface SubmitOptions extends RunContext, CallTarget {
  /** Higher is more urgent. @default 0 */
  readonly priority?: number | undefined;
  /** Flags of this call; they reach the worker beside the kwargs. */
  readonly control?: Readonly<Record<string, unknown>> | undefined;
  /** Milliseconds the call may take once its instance is ready. @default no limit */
  readonly timeoutMs?: number | undefined;
  /** Repeats after a failure that may pass. @default the queue's */
  readonly maxRetries?: number | undefined;
  /** The size of the input in whatever unit fits; jobs of similar size share a profile. */
  readonly inputSize?: number | undefined;
  /** For a first run: admitted beside others by this number, ended when it uses more. */
  readonly vramLimitMb?: number | undefined;
}

/** Everything about one job of a composition that its submit adds. */
export interface MemberOptions {
  readonly compositionId: string;
  readonly nodeId: string;
  readonly itemIndex: number | null;
}

export interface NewJobOptions extends SubmitOptions {
  readonly chunks?: ChunkChannel | null;
  readonly member?: MemberOptions;
}

/** One call as its caller describes it. */
export interface CallRequest {
  readonly instanceId: string;
  readonly kwargs: Readonly<Record<string, unknown>>;
  readonly options: NewJobOptions;
  /** Stamped where the options name none. */
  readonly context: RunContext;
  readonly maxRetries: number;
}

/**
 * A new job, checked completely and not yet stored.
 *
 * @throws {CjmError} what `JobQueue.submit` throws.
 */
export function newJob(loop: RunLoop, request: CallRequest): JobEntry {
  const { instanceId, kwargs, options } = request;
  const { executor, profiles } = loop.options;
  const facts = executor.facts(instanceId);
  if (!facts.isEnabled) {
    throw new CjmError("CAPABILITY_DISABLED", `Instance "${instanceId}" is disabled`);
  }
  const target = targetOf(options);
  executor.check(instanceId, target, kwargs);
  const inputSize = options.inputSize ?? null;
  return newEntry(
    {
      ...callerSpec(request),
      ...(options.member ?? { compositionId: null, nodeId: null, itemIndex: null }),
      id: newId(),
      instanceId,
      capability: facts.capability,
      target,
      kwargs,
      configHash: facts.configHash,
      codeHash: facts.codeHash,
      profileKey: profiles.keyOf(facts, inputSize, loop.machine.gpuModel),
      inputBucket: inputSize,
      submittedAt: new Date().toISOString(),
    },
    { priority: options.priority ?? 0, seq: loop.nextSeq(), chunks: options.chunks ?? null },
  );
}

function targetOf({ action, task, method }: CallTarget): CallTarget {
  return { action, task, method };
}

function callerSpec({
  options,
  context,
  maxRetries,
}: CallRequest): Pick<
  JobSpec,
  "control" | "maxRetries" | "timeoutMs" | "runId" | "actor" | "vramLimitMb"
> {
  return {
    control: options.control ?? {},
    maxRetries: options.maxRetries ?? maxRetries,
    timeoutMs: options.timeoutMs ?? null,
    runId: options.runId ?? context.runId ?? null,
    actor: options.actor ?? context.actor ?? null,
    vramLimitMb: options.vramLimitMb ?? null,
  };
}

/**
 * Refuses what could not be stored: it would be found out in the middle of a commit.
 *
 * @throws {CjmError} `CAPABILITY_INPUT` naming every bad field.
 */
export function requireStorable(
  kwargs: Readonly<Record<string, unknown>>,
  options: SubmitOptions,
): void {
  const wrong = [
    ...Object.entries({ kwargs, control: options.control ?? {} })
      .filter(([, value]) => !isJson(value))
      .map(([field]) => field),
    ...numbers(options)
      .filter(
        ([, value, least]) => value !== undefined && !(Number.isFinite(value) && value >= least),
      )
      .map(([field]) => field),
  ];
  if (wrong.length === 0) return;
  throw new CjmError(
    "CAPABILITY_INPUT",
    `Cannot be stored as JSON or is no such number: ${wrong.join(", ")}`,
    {
      fieldsInvalid: wrong,
    },
  );
}

function numbers(options: SubmitOptions): readonly [string, number | undefined, number][] {
  return [
    ["priority", options.priority, -Infinity],
    ["timeoutMs", options.timeoutMs, 0],
    ["maxRetries", options.maxRetries, 0],
    ["inputSize", options.inputSize, 0],
    ["vramLimitMb", options.vramLimitMb, 0],
  ];
}

function isJson(value: unknown): boolean {
  try {
    JSON.stringify(value);
    return true;
  } catch {
    return false;
  }
}
