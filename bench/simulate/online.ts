import {
  createScheduler,
  step,
  type AdmitDecision,
  type Decision,
  type InstanceSample,
  type SchedulerEvent,
  type SchedulerState,
} from "../../src/scheduler/index.ts";
import { EndHeap } from "./offline.ts";
import { learn, type JobKind, type Workload } from "./workload.ts";

export interface OnlineOptions {
  readonly gpus: number;
  readonly totalMb: number;
  /** Pending jobs that the scheduler sees at a time. */
  readonly backlog: number;
  readonly telemetryMs: number;
}

export interface OnlineResult {
  readonly makespanMs: number;
  readonly steps: number;
  readonly decisions: number;
  readonly admissions: number;
  /** Time spent inside the reducer. */
  readonly stepMs: number;
  /** Moments at which the true peaks of a GPU's jobs together were more than the GPU has. */
  readonly overCommits: number;
  readonly worstFillMb: number;
  /** From submit to start, by job. */
  readonly waitMs: Float64Array;
  /** The most that any job was passed while it held a reservation. */
  readonly maxPasses: number;
}

interface Run {
  readonly instanceId: string;
  readonly gpu: number;
  readonly startedAt: number;
}

/** A worker reaches its peak when this share of its time is over. */
const RAMP_SHARE = 0.1;

/** Drives the product's reducer with a virtual clock; every job has a worker of its own, which then ends. */
export class OnlineRun {
  readonly #workload: Workload;
  readonly #options: OnlineOptions;
  readonly #state: SchedulerState;
  readonly #kinds: JobKind[];
  readonly #ends = new EndHeap();
  readonly #running = new Map<number, Run>();
  readonly #idle: string[] = [];
  readonly #trueMb: Float64Array;
  readonly #submittedAt: Float64Array;
  readonly #waitMs: Float64Array;
  #instances = 0;
  #nextJob = 0;
  #now = 0;
  #result = { steps: 0, decisions: 0, admissions: 0, stepMs: 0, overCommits: 0, worstFillMb: 0 };
  #maxPasses = 0;

  constructor(workload: Workload, options: OnlineOptions) {
    this.#workload = workload;
    this.#options = options;
    this.#kinds = [...workload.kinds];
    this.#trueMb = new Float64Array(options.gpus);
    this.#submittedAt = new Float64Array(workload.kindOf.length);
    this.#waitMs = new Float64Array(workload.kindOf.length);
    this.#state = createScheduler({ maxLanes: Infinity });
  }

  run(): OnlineResult {
    for (const { key, profile } of this.#kinds) {
      this.#send({ type: "profile_changed", now: 0, key, profile });
    }
    this.#sample();
    this.#submitMore();
    let nextSample = this.#options.telemetryMs;
    while (this.#running.size > 0) {
      if (nextSample <= this.#ends.nextAt) {
        this.#now = nextSample;
        nextSample += this.#options.telemetryMs;
        this.#sample();
      } else {
        this.#endNext();
      }
      this.#submitMore();
    }
    const left = this.#state.pending.size;
    if (left > 0) throw new Error(`${left} jobs were never started`);
    return {
      ...this.#result,
      makespanMs: this.#now,
      waitMs: this.#waitMs,
      maxPasses: this.#maxPasses,
    };
  }

  #submitMore(): void {
    const { kindOf } = this.#workload;
    while (this.#state.pending.size < this.#options.backlog && this.#nextJob < kindOf.length) {
      const job = this.#nextJob++;
      const kind = this.#kinds[kindOf[job] ?? 0];
      if (kind === undefined) return;
      const instanceId = this.#idle.pop() ?? `i${this.#instances++}`;
      this.#submittedAt[job] = this.#now;
      this.#send({
        type: "job_submitted",
        now: this.#now,
        job: {
          jobId: String(job),
          instanceId,
          capability: kind.profile.key.capability,
          profileKey: kind.key,
          priority: 0,
          seq: job,
        },
      });
    }
  }

  #endNext(): void {
    const end = this.#ends.pop();
    const run = end === null ? undefined : this.#running.get(end.job);
    if (end === null || run === undefined) return;
    this.#now = end.at;
    this.#running.delete(end.job);
    this.#trueMb[end.gpu] = (this.#trueMb[end.gpu] ?? 0) - (this.#workload.trueMb[end.job] ?? 0);
    this.#learn(end.job);
    const { instanceId } = run;
    this.#send({
      type: "job_finished",
      now: this.#now,
      jobId: String(end.job),
      outcome: "completed",
    });
    this.#send({
      type: "instance_changed",
      now: this.#now,
      instanceId,
      capability: "",
      state: "absent",
      gpuUuid: null,
      maxConcurrent: 1,
      observedVramMb: 0,
      observedRamMb: 0,
    });
    this.#idle.push(instanceId);
  }

  /** A run that needed more than any before it raises the profile of its kind. */
  #learn(job: number): void {
    const index = this.#workload.kindOf[job] ?? 0;
    const kind = this.#kinds[index];
    const vramMb = this.#workload.trueMb[job] ?? 0;
    if (kind === undefined || vramMb <= kind.profile.vramPeakMb.max) return;
    const durationMs = this.#workload.durationMs[job] ?? 0;
    const profile = learn(kind.profile, kind.profile.key, { vramMb, durationMs });
    this.#kinds[index] = { key: kind.key, profile };
    this.#send({ type: "profile_changed", now: this.#now, key: kind.key, profile });
  }

  #sample(): void {
    const { gpus, totalMb } = this.#options;
    const free = new Float64Array(gpus).fill(totalMb);
    const instances: InstanceSample[] = [];
    for (const [job, { instanceId, gpu, startedAt }] of this.#running) {
      const rampMs = RAMP_SHARE * (this.#workload.durationMs[job] ?? 0);
      const reached = Math.min(1, (this.#now - startedAt) / rampMs);
      const vramMb = reached * (this.#workload.trueMb[job] ?? 0);
      free[gpu] = (free[gpu] ?? 0) - vramMb;
      instances.push({ instanceId, vramMb, ramMb: 0 });
    }
    this.#send({
      type: "telemetry",
      now: this.#now,
      gpus: Array.from(free, (freeMb, gpu) => ({ uuid: `g${gpu}`, totalMb, freeMb })),
      ramFreeMb: null,
      diskFreeMb: null,
      instances,
    });
  }

  #send(event: SchedulerEvent): void {
    const before = performance.now();
    const decisions = step(this.#state, event);
    this.#result.stepMs += performance.now() - before;
    this.#result.steps++;
    this.#result.decisions += decisions.length;
    for (const decision of decisions) this.#carryOut(decision);
  }

  #carryOut(decision: Decision): void {
    if (decision.type === "admit") this.#start(decision);
    else if (decision.type !== "block") throw new Error(`unexpected ${decision.type}`);
  }

  #start({ jobId, instanceId, gpuUuid }: AdmitDecision): void {
    const job = Number(jobId);
    const gpu = Number(gpuUuid?.slice(1));
    this.#running.set(job, { instanceId, gpu, startedAt: this.#now });
    this.#ends.push(this.#now + (this.#workload.durationMs[job] ?? 0), job, gpu);
    this.#waitMs[job] = this.#now - (this.#submittedAt[job] ?? 0);
    const trueMb = (this.#trueMb[gpu] ?? 0) + (this.#workload.trueMb[job] ?? 0);
    this.#trueMb[gpu] = trueMb;
    this.#result.admissions++;
    this.#result.worstFillMb = Math.max(this.#result.worstFillMb, trueMb);
    if (trueMb > this.#options.totalMb) this.#result.overCommits++;
    for (const { jobId: holder } of this.#state.holds.values()) {
      this.#maxPasses = Math.max(this.#maxPasses, this.#state.pending.get(holder)?.passes ?? 0);
    }
  }
}
