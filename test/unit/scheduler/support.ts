import {
  createScheduler,
  foldSample,
  profileKey,
  step,
  type AdmitDecision,
  type Decision,
  type JobRequest,
  type ResourceProfile,
  type SchedulerConfig,
  type SchedulerEvent,
  type SchedulerState,
} from "../../../src/scheduler/index.ts";

/** An event without its time. */
type Untimed<E> = E extends unknown ? Omit<E, "now"> : never;
export type UntimedEvent = Untimed<SchedulerEvent>;

export interface Driver {
  readonly state: SchedulerState;
  now: number;
  send(event: UntimedEvent): Decision[];
  submit(jobId: string, job?: Partial<JobRequest>): Decision[];
  finish(jobId: string, outcome?: "completed" | "failed" | "out_of_memory"): Decision[];
  ready(instanceId: string, more?: Partial<InstanceFacts>): Decision[];
  absent(instanceId: string): Decision[];
  telemetry(
    gpus: Record<string, [number, number]> | null,
    more?: Partial<TelemetryFacts>,
  ): Decision[];
  profile(key: string, measured: Measured): void;
}

interface InstanceFacts {
  readonly gpuUuid: string | null;
  readonly maxConcurrent: number;
  readonly observedVramMb: number | null;
}

interface TelemetryFacts {
  readonly ramFreeMb: number | null;
  readonly ramTotalMb: number | null;
  readonly diskFreeMb: number | null;
  readonly vram: Record<string, number>;
  readonly ram: Record<string, number>;
}

export interface Measured {
  readonly vramMb?: number | null;
  readonly ramMb?: number;
  readonly durationMs?: number;
  readonly loadMs?: number;
  readonly capability?: string;
  readonly bucket?: number | null;
  readonly version?: string;
}

/** Keys of the tests: capability `cap`, one version, the name as config hash. */
export function keyOf(name: string, measured: Measured = {}): string {
  return profileKey({
    capability: measured.capability ?? "cap",
    version: measured.version ?? "1.0",
    configHash: name,
    bucket: measured.bucket ?? null,
    gpuModel: "G",
  });
}

export function profileOf(name: string, measured: Measured): ResourceProfile {
  return foldSample(null, {
    key: {
      capability: measured.capability ?? "cap",
      version: measured.version ?? "1.0",
      configHash: name,
      bucket: measured.bucket ?? null,
      gpuModel: "G",
    },
    outcome: "completed",
    alone: true,
    vramPeakMb: measured.vramMb === undefined ? 0 : measured.vramMb,
    ramPeakMb: measured.ramMb ?? 0,
    durationMs: measured.durationMs ?? 1000,
    loadMs: measured.loadMs ?? null,
    cpuPercent: null,
    usage: {},
    seenAtMs: 0,
    driver: null,
  });
}

export function drive(config: Partial<SchedulerConfig> = {}): Driver {
  const state = createScheduler({ maxLanes: 8, vramMarginMb: 0, ramMarginMb: 0, ...config });
  let seq = 0;
  const driver: Driver = {
    state,
    now: 0,
    send: (event) => step(state, { ...event, now: driver.now }),
    submit: (jobId, job = {}) =>
      driver.send({
        type: "job_submitted",
        job: {
          jobId,
          instanceId: "one",
          capability: "cap",
          profileKey: keyOf("k"),
          priority: 0,
          seq: seq++,
          ...job,
        },
      }),
    finish: (jobId, outcome = "completed") => driver.send({ type: "job_finished", jobId, outcome }),
    ready: (instanceId, more = {}) =>
      driver.send({
        type: "instance_changed",
        instanceId,
        capability: "cap",
        state: "ready",
        gpuUuid: null,
        maxConcurrent: 1,
        observedVramMb: null,
        observedRamMb: null,
        ...more,
      }),
    absent: (instanceId) =>
      driver.send({
        type: "instance_changed",
        instanceId,
        capability: "cap",
        state: "absent",
        gpuUuid: null,
        maxConcurrent: 1,
        observedVramMb: null,
        observedRamMb: null,
      }),
    telemetry: (gpus, more = {}) =>
      driver.send({
        type: "telemetry",
        gpus:
          gpus === null
            ? null
            : Object.entries(gpus).map(([uuid, [totalMb, freeMb]]) => ({ uuid, totalMb, freeMb })),
        ramFreeMb: more.ramFreeMb ?? null,
        ramTotalMb: more.ramTotalMb ?? null,
        diskFreeMb: more.diskFreeMb ?? null,
        instances: [
          ...new Set([...Object.keys(more.vram ?? {}), ...Object.keys(more.ram ?? {})]),
        ].map((instanceId) => ({
          instanceId,
          vramMb: more.vram?.[instanceId] ?? 0,
          ramMb: more.ram?.[instanceId] ?? 0,
        })),
      }),
    profile: (name, measured) => {
      driver.send({
        type: "profile_changed",
        key: keyOf(name, measured),
        profile: profileOf(name, measured),
      });
    },
  };
  return driver;
}

export function admits(decisions: readonly Decision[]): AdmitDecision[] {
  return decisions.filter((decision) => decision.type === "admit");
}

export function admitted(decisions: readonly Decision[]): string[] {
  return admits(decisions).map(({ jobId }) => jobId);
}
