import type { TelemetryClock } from "./clock.ts";
import { watchChunkSchema, type GpuEvent, type GpuSample } from "./gpu-sample.ts";
import type { GpuSource } from "./gpu-source.ts";

const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 5_000;
/** A stream this fast begins with a reading made for it, not with one shared with others. */
const FRESH_HZ = 100;

export interface FollowerListener {
  sample(sample: GpuSample): void;
  event(event: GpuEvent): void;
  /** The stream broke or sent something that is no chunk; it is opened again. */
  broken(error: unknown): void;
}

/** Keeps one stream of a source open at the wanted rate, over failures and changes of rate. */
export class GpuFollower implements AsyncDisposable {
  readonly #source: GpuSource;
  readonly #listener: FollowerListener;
  readonly #clock: TelemetryClock;
  readonly #loops = new Set<Promise<void>>();
  #stop: AbortController | undefined;
  #hz = 0;

  constructor(source: GpuSource, listener: FollowerListener, clock: TelemetryClock) {
    this.#source = source;
    this.#listener = listener;
    this.#clock = clock;
  }

  get hz(): number {
    return this.#hz;
  }

  /** The old stream ends when the new one has delivered, so that no moment goes unseen. */
  follow(hz: number): void {
    if (hz === this.#hz) return;
    this.#hz = hz;
    const before = this.#stop;
    const stop = new AbortController();
    this.#stop = stop;
    const loop = this.#run(hz, stop.signal, () => before?.abort()).finally(() => {
      this.#loops.delete(loop);
    });
    this.#loops.add(loop);
  }

  /** One sample that is read now, beside the stream; gives up after `limitMs`. */
  async readOnce(limitMs: number): Promise<void> {
    const stop = new AbortController();
    const limit = this.#clock.sleep(limitMs, stop.signal);
    const read = this.#readFirst(stop.signal).catch(() => undefined);
    await Promise.race([read, limit.catch(() => undefined)]);
    stop.abort();
  }

  async #readFirst(signal: AbortSignal): Promise<void> {
    for await (const chunk of this.#source.watch(FRESH_HZ, signal)) {
      this.#deliver(chunk);
      return;
    }
  }

  async #run(hz: number, signal: AbortSignal, takeOver: () => void): Promise<void> {
    let retryMs = FIRST_RETRY_MS;
    while (!signal.aborted) {
      const deliveredSome = await this.#runOnce(hz, signal, takeOver);
      // Also a stream that never delivers replaces the old one: its rate is no longer wanted.
      takeOver();
      retryMs = deliveredSome ? FIRST_RETRY_MS : Math.min(retryMs * 2, LAST_RETRY_MS);
      await this.#clock.sleep(retryMs, signal).catch(() => undefined);
    }
  }

  async #runOnce(hz: number, signal: AbortSignal, takeOver: () => void): Promise<boolean> {
    let deliveredSome = false;
    try {
      for await (const chunk of this.#source.watch(hz, signal)) {
        if (signal.aborted) return deliveredSome;
        this.#deliver(chunk);
        deliveredSome = true;
        takeOver();
      }
      if (!signal.aborted) this.#listener.broken(new Error("The monitor's stream ended"));
    } catch (error) {
      if (!signal.aborted) this.#listener.broken(error);
    }
    return deliveredSome;
  }

  #deliver(chunk: unknown): void {
    const parsed = watchChunkSchema.parse(chunk);
    if (parsed.type === "sample") this.#listener.sample(parsed);
    else this.#listener.event(parsed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop?.abort();
    await Promise.all(this.#loops);
  }
}
