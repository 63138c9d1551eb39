import type { Workload } from "./workload.ts";

/** What an offline packing counts a job with. */
export interface Packing {
  /** Memory by job in whole MB. */
  readonly sizeMb: (job: number) => number;
  readonly usableMb: number;
  readonly gpus: number;
}

/**
 * Makespan of an offline best-fit that knows every job and its duration from the start.
 *
 * Whenever memory is free on a GPU it takes the job that leaves the least of it, the longest of equals
 * first, until none fits. It sees memory free at once and moves nothing.
 */
export function offlineMakespan({ durationMs }: Workload, packing: Packing): number {
  const waiting = new BySize(durationMs, packing);
  const free = new Float64Array(packing.gpus).fill(packing.usableMb);
  const ends = new EndHeap();
  const fill = (gpu: number, now: number): void => {
    for (;;) {
      const job = waiting.takeLargest(free[gpu] ?? 0);
      if (job < 0) return;
      free[gpu] = (free[gpu] ?? 0) - packing.sizeMb(job);
      ends.push(now + (durationMs[job] ?? 0), job, gpu);
    }
  };
  for (let gpu = 0; gpu < packing.gpus; gpu++) fill(gpu, 0);
  let now = 0;
  for (let end = ends.pop(); end !== null; end = ends.pop()) {
    now = end.at;
    free[end.gpu] = (free[end.gpu] ?? 0) + packing.sizeMb(end.job);
    fill(end.gpu, now);
  }
  return now;
}

/** Volume of the work over the volume of the machine: no schedule can be shorter. */
export function volumeBound({ durationMs }: Workload, { sizeMb, usableMb, gpus }: Packing): number {
  let volume = 0;
  for (let job = 0; job < durationMs.length; job++) volume += sizeMb(job) * (durationMs[job] ?? 0);
  return volume / (usableMb * gpus);
}

/** Jobs in stacks by size; the next smaller size that is not empty is found through a bit per size. */
class BySize {
  readonly #stacks = new Map<number, number[]>();
  readonly #words: Int32Array;

  constructor(durationMs: Float64Array, { sizeMb, usableMb }: Packing) {
    this.#words = new Int32Array((usableMb >> 5) + 2);
    for (let job = 0; job < durationMs.length; job++) {
      const size = sizeMb(job);
      const stack = this.#stacks.get(size);
      if (stack === undefined) this.#stacks.set(size, [job]);
      else stack.push(job);
    }
    for (const [size, stack] of this.#stacks) {
      stack.sort((a, b) => (durationMs[a] ?? 0) - (durationMs[b] ?? 0));
      this.#words[size >> 5] = (this.#words[size >> 5] ?? 0) | (1 << (size & 31));
    }
  }

  /** The job with the largest size up to `limitMb`; -1 when none is left. */
  takeLargest(limitMb: number): number {
    const size = this.#atMost(Math.floor(limitMb));
    const stack = this.#stacks.get(size);
    const job = stack?.pop();
    if (stack === undefined || job === undefined) return -1;
    if (stack.length === 0) {
      this.#words[size >> 5] = (this.#words[size >> 5] ?? 0) & ~(1 << (size & 31));
    }
    return job;
  }

  #atMost(limit: number): number {
    if (limit < 0) return -1;
    let index = limit >> 5;
    let word = (this.#words[index] ?? 0) & (-1 >>> (31 - (limit & 31)));
    while (word === 0 && index > 0) word = this.#words[--index] ?? 0;
    return word === 0 ? -1 : index * 32 + 31 - Math.clz32(word);
  }
}

interface End {
  readonly at: number;
  readonly job: number;
  readonly gpu: number;
}

/** Ends of running jobs, the earliest first. */
export class EndHeap {
  readonly #ends: End[] = [];

  push(at: number, job: number, gpu: number): void {
    const ends = this.#ends;
    const end = { at, job, gpu };
    let index = ends.push(end) - 1;
    while (index > 0) {
      const parent = ends[(index - 1) >> 1];
      if (parent === undefined || parent.at <= at) break;
      ends[index] = parent;
      index = (index - 1) >> 1;
    }
    ends[index] = end;
  }

  get nextAt(): number {
    return this.#ends[0]?.at ?? Infinity;
  }

  pop(): End | null {
    const ends = this.#ends;
    const top = ends[0];
    const last = ends.pop();
    if (top === undefined || last === undefined) return null;
    if (ends.length === 0) return top;
    let index = 0;
    for (;;) {
      const [left, right] = [ends[2 * index + 1], ends[2 * index + 2]];
      const isRight = right !== undefined && left !== undefined && right.at < left.at;
      const child = isRight ? right : left;
      if (child === undefined || child.at >= last.at) break;
      ends[index] = child;
      index = 2 * index + (isRight ? 2 : 1);
    }
    ends[index] = last;
    return top;
  }
}
