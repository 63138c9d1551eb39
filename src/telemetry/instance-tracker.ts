import type { Attribution, InstanceTree } from "./attribution.ts";
import type { TelemetryClock } from "./clock.ts";
import type { ProcessReader, ProcessReading } from "./process-reader.ts";

/** Shared pages are measured again at most this often: it is the dearest reading there is. */
const PSS_PERIOD_MS = 1_000;
/** For a large tree it takes so long that only this share of the time may go into it. */
const PSS_TIME_SHARE = 0.01;

/** Peaks are true at 10 Hz; a tree is not searched for new processes more often than that. */
const LOOK_PERIOD_MS = 100;

/** What one look at an instance's tree found. */
export interface TreeUse {
  /** Resident memory of the tree; shared pages once, where `method` is `pss`. */
  readonly bytes: number;
  readonly method: "rss" | "pss";
  /** CPU time of every process seen so far, ended ones included. */
  readonly cpuMs: number;
  readonly processes: number;
  /** Since the look before; 100 is one core. Null at the first look. */
  readonly cpuPercent: number | null;
  readonly atMs: number;
}

/** Follows one worker's process tree. */
export class InstanceTracker {
  readonly instanceId: string;
  readonly rootPid: number;
  /** Jobs that run in it now. */
  readonly jobs = new Set<string>();
  hasRun = false;
  use: TreeUse | undefined;
  /** Latest and highest VRAM by GPU, and highest resident memory, since it is followed. */
  gpu: ReadonlyMap<string, Attribution> = new Map();
  readonly gpuPeakBytes = new Map<string, number>();
  hostPeakBytes = 0;
  readonly #reader: ProcessReader;
  readonly #hostCgroup: string | null;
  readonly #clock: TelemetryClock;
  readonly #cpuByProcess = new Map<string, number>();
  #processes: readonly ProcessReading[] = [];
  #lookedMs = -Infinity;
  #innerPids = new Map<string, number>();
  #cgroup: string | null | undefined;
  #cpuMs = 0;
  #pssShare: number | undefined;
  #nextPssMs = -Infinity;
  #pssRunning: Promise<void> | undefined;

  constructor(
    identity: { readonly instanceId: string; readonly rootPid: number },
    reader: ProcessReader,
    { hostCgroup, clock }: { readonly hostCgroup: string | null; readonly clock: TelemetryClock },
  ) {
    this.instanceId = identity.instanceId;
    this.rootPid = identity.rootPid;
    this.#reader = reader;
    this.#hostCgroup = hostCgroup;
    this.#clock = clock;
  }

  /** Loading, or running a job: what changes on its GPU may be its doing. */
  get isActive(): boolean {
    return this.jobs.size > 0 || !this.hasRun;
  }

  async look(nowMs: number): Promise<TreeUse> {
    const found = this.#reader.tree(this.rootPid);
    this.#lookedMs = nowMs;
    // Awaiting what is there already would let other work in between every two trees.
    return this.#take(found instanceof Promise ? await found : found, nowMs);
  }

  /**
   * As {@link look}, for less: where a look was taken just before, only the processes that it found
   * are read again. Finding a tree costs several times as much as reading it.
   */
  async glance(nowMs: number): Promise<TreeUse> {
    if (nowMs - this.#lookedMs >= LOOK_PERIOD_MS) return await this.look(nowMs);
    const found = this.#reader.reread(this.#processes);
    return this.#take(found instanceof Promise ? await found : found, nowMs);
  }

  #take(processes: readonly ProcessReading[], nowMs: number): TreeUse {
    this.#processes = processes;
    this.#countCpu(processes);
    const rssBytes = processes.reduce((sum, { rssBytes: bytes }) => sum + bytes, 0);
    const isShared = processes.length > 1;
    if (isShared && nowMs >= this.#nextPssMs) this.#startPss(nowMs, rssBytes);
    const share = isShared ? this.#pssShare : undefined;
    const before = this.use;
    this.use = {
      bytes: rssBytes * (share ?? 1),
      method: share === undefined ? "rss" : "pss",
      cpuMs: this.#cpuMs,
      processes: processes.length,
      cpuPercent: before === undefined ? null : cpuPercent(before, this.#cpuMs, nowMs),
      atMs: nowMs,
    };
    this.hostPeakBytes = Math.max(this.hostPeakBytes, this.use.bytes);
    return this.use;
  }

  sampled(gpu: ReadonlyMap<string, Attribution>): void {
    this.gpu = gpu;
    for (const [uuid, { bytes }] of gpu) {
      this.gpuPeakBytes.set(uuid, Math.max(bytes, this.gpuPeakBytes.get(uuid) ?? 0));
    }
  }

  /** The tree as last seen. Inner pids are read once for every process. */
  tree(): InstanceTree {
    const inner = new Map<string, number>();
    for (const { pid, startId } of this.#processes) {
      const key = `${pid}:${startId}`;
      const number = this.#innerPids.get(key) ?? this.#reader.namespacePids(pid).at(-1) ?? pid;
      inner.set(key, number);
    }
    this.#innerPids = inner;
    return {
      instanceId: this.instanceId,
      rootPid: this.rootPid,
      pids: new Set(this.#processes.map(({ pid }) => pid)),
      innerPids: new Set(inner.values()),
      cgroup: this.#ownCgroup(),
    };
  }

  /** Waits for a measurement of shared pages that is under way. */
  async settle(): Promise<void> {
    await this.#pssRunning;
  }

  #ownCgroup(): string | null {
    if (this.#cgroup === undefined) {
      const cgroup = this.#reader.cgroup(this.rootPid);
      this.#cgroup = cgroup === this.#hostCgroup ? null : cgroup;
    }
    return this.#cgroup;
  }

  #countCpu(processes: readonly ProcessReading[]): void {
    const known = new Set<string>();
    for (const { pid, startId, cpuMs } of processes) {
      const key = `${pid}:${startId}`;
      known.add(key);
      this.#cpuMs += Math.max(0, cpuMs - (this.#cpuByProcess.get(key) ?? 0));
      this.#cpuByProcess.set(key, cpuMs);
    }
    for (const key of this.#cpuByProcess.keys()) {
      if (!known.has(key)) this.#cpuByProcess.delete(key);
    }
  }

  #startPss(nowMs: number, rssBytes: number): void {
    if (this.#pssRunning !== undefined || rssBytes === 0) return;
    this.#nextPssMs = nowMs + PSS_PERIOD_MS;
    this.#pssRunning = this.#readPss(rssBytes).finally(() => {
      this.#pssRunning = undefined;
    });
  }

  async #readPss(rssBytes: number): Promise<void> {
    const startMs = this.#clock.now();
    const shares = await Promise.all(this.#processes.map(({ pid }) => this.#reader.pssBytes(pid)));
    const endMs = this.#clock.now();
    this.#nextPssMs = Math.max(this.#nextPssMs, endMs + (endMs - startMs) / PSS_TIME_SHARE);
    let sum = 0;
    for (const bytes of shares) {
      // Unreadable for one (another user's, or just ended) means unknown for all.
      if (bytes === null) return;
      sum += bytes;
    }
    this.#pssShare = Math.min(1, sum / rssBytes);
  }
}

function cpuPercent(before: TreeUse, cpuMs: number, nowMs: number): number | null {
  const elapsedMs = nowMs - before.atMs;
  return elapsedMs <= 0 ? before.cpuPercent : ((cpuMs - before.cpuMs) / elapsedMs) * 100;
}
