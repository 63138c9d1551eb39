import { statfsSync } from "node:fs";
import { join } from "node:path";
import type { CgroupReading, JailCgroup } from "./cgroup.ts";
import { INIT_PROCESSES } from "./jail-init.ts";
import type { JailPolicy, Limits } from "./policy.ts";
import { sampleTree, type TreeSample } from "./process-tree.ts";
import type { LimitStatus } from "./status.ts";
import { folderBytes } from "./work-folders.ts";

const SAMPLE_MS = 20;
const WALK_EVERY = 25;
/** Empty files take no blocks but kernel memory, so they are counted too. */
const FILES_PER_MB = 1_024;
const MB = 1_048_576;

/** What of a jail the monitor looks at. */
export interface MonitoredJail {
  readonly initPid: number;
  readonly root: string;
  readonly cgroup: JailCgroup | undefined;
  readonly policy: JailPolicy;
}

export interface UsageReport {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakMemoryMb: number;
}

interface Seen {
  /** Undefined without a cgroup; then what was sampled decides. */
  readonly reading: CgroupReading | undefined;
  readonly pids: number;
  readonly isDiskFull: boolean;
}

/**
 * Watches one guest from the opening of the gate to its end, 50 times a second, and names the
 * limit that was exceeded first.
 */
export class Monitor implements Disposable {
  readonly #jail: MonitoredJail;
  readonly #limits: Limits;
  readonly #folders: readonly string[];
  readonly #onExceeded: () => void;
  readonly #startedAt = performance.now();
  readonly #cpuAtStart: number;
  readonly #wallTimer: NodeJS.Timeout;
  readonly #sampleTimer: NodeJS.Timeout;
  #wallMs: number | undefined;
  #cpuMs = 0;
  #peakBytes = 0;
  #samples = 0;
  #firstLimit: LimitStatus | undefined;

  /** `onExceeded` is called at most once, when a limit other than that of output is exceeded. */
  constructor(jail: MonitoredJail, onExceeded: () => void) {
    const { limits, mounts } = jail.policy;
    this.#jail = jail;
    this.#limits = limits;
    this.#folders = mounts.filter(({ kind }) => kind === "tmpfs").map(({ target }) => target);
    this.#onExceeded = onExceeded;
    this.#cpuAtStart = this.#cpuTotal(jail.cgroup?.read());
    this.#wallTimer = setTimeout(() => this.#exceeded("wall_timeout"), limits.wallMs);
    this.#sampleTimer = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  get firstLimit(): LimitStatus | undefined {
    return this.#firstLimit;
  }

  /** Notes that output was cut; the guest goes on. */
  outputExceeded(): void {
    this.#firstLimit ??= "output_limit";
  }

  /** Takes the last reading; call it when the guest has ended and its file systems still exist. */
  finish(): UsageReport {
    this.#wallMs ??= performance.now() - this.#startedAt;
    this.#stop();
    this.#samples = 0;
    this.#sample();
    return {
      wallMs: Math.round(this.#wallMs),
      cpuMs: Math.round(this.#cpuMs),
      peakMemoryMb: Math.round((this.#peakBytes / MB) * 10) / 10,
    };
  }

  [Symbol.dispose](): void {
    this.#stop();
  }

  #stop(): void {
    clearTimeout(this.#wallTimer);
    clearInterval(this.#sampleTimer);
  }

  #sample(): void {
    const reading = this.#jail.cgroup?.read();
    const tree = reading === undefined ? sampleTree(this.#jail.initPid) : undefined;
    this.#cpuMs = Math.max(this.#cpuMs, this.#cpuTotal(reading, tree) - this.#cpuAtStart);
    const disk = this.#diskUse();
    this.#peakBytes = Math.max(
      this.#peakBytes,
      reading?.peakBytes ?? (tree?.residentBytes ?? 0) + disk.usedBytes,
    );
    const limit = this.#limitOf({ reading, pids: tree?.pids ?? 0, isDiskFull: disk.isFull });
    if (limit !== undefined) this.#exceeded(limit);
  }

  #limitOf(seen: Seen): LimitStatus | undefined {
    const limits = this.#limits;
    const { isOutOfMemory, isOutOfPids } =
      seen.reading === undefined
        ? {
            isOutOfMemory: this.#peakBytes > limits.memoryMb * MB,
            isOutOfPids: seen.pids - INIT_PROCESSES >= limits.pids,
          }
        : { isOutOfMemory: seen.reading.oomKills > 0, isOutOfPids: seen.reading.pidsRefused > 0 };
    // A fork bomb also fills memory; what it ran into first is the number of processes.
    if (isOutOfPids) return "pids";
    if (isOutOfMemory) return "oom";
    if (seen.isDiskFull) return "disk_limit";
    return this.#cpuMs > limits.cpuMs ? "cpu_timeout" : undefined;
  }

  /** Fill of the jail's writable file systems; what cannot be read any more is left out. */
  #diskUse(): { usedBytes: number; isFull: boolean } {
    const { diskMb } = this.#limits;
    let usedBytes = 0;
    let isFull = this.#isWorkSourceFull();
    for (const folder of this.#folders) {
      try {
        const { blocks, bfree, bsize, files, ffree } = statfsSync(join(this.#jail.root, folder));
        usedBytes += (blocks - bfree) * bsize;
        isFull ||= bfree === 0 || files - ffree > diskMb * FILES_PER_MB;
      } catch {
        // The jail is gone; what was seen before stands.
      }
    }
    return { usedBytes, isFull };
  }

  /** A folder of this machine has no size of its own, so it is walked, and less often. */
  #isWorkSourceFull(): boolean {
    const { workSource } = this.#jail.policy;
    const isDue = this.#samples % WALK_EVERY === 0;
    this.#samples += 1;
    if (workSource === undefined || !isDue) return false;
    const limit = this.#limits.diskMb * MB;
    return folderBytes(workSource, limit) > limit;
  }

  #cpuTotal(reading: CgroupReading | undefined, sampled?: TreeSample): number {
    return reading?.cpuMs ?? (sampled ?? sampleTree(this.#jail.initPid)).cpuMs;
  }

  #exceeded(limit: LimitStatus): void {
    this.#firstLimit ??= limit;
    if (this.#wallMs !== undefined) return;
    this.#stop();
    this.#wallMs = performance.now() - this.#startedAt;
    this.#onExceeded();
  }
}
