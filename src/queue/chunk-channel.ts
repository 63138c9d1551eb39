/** Chunks a stream may be ahead of its reader before the worker has to wait. */
const DEFAULT_CAPACITY = 64;

/** One producer, one consumer, bounded: the producer waits while the buffer is full. */
export class ChunkChannel {
  readonly #capacity: number;
  readonly #buffer: unknown[] = [];
  #isClosed = false;
  #hasBegun = false;
  #failure: { readonly error: unknown } | undefined;
  #readable = Promise.withResolvers<void>();
  #writable = Promise.withResolvers<void>();

  constructor(capacity = DEFAULT_CAPACITY) {
    this.#capacity = capacity;
  }

  /** Whether a chunk was ever taken in. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  /** Resolves when the chunk is in the buffer, or at once if nobody will read it any more. */
  async push(chunk: unknown): Promise<void> {
    while (this.#buffer.length >= this.#capacity && !this.#isClosed) {
      this.#writable = Promise.withResolvers<void>();
      await this.#writable.promise;
    }
    if (this.#isClosed) return;
    this.#hasBegun = true;
    this.#buffer.push(chunk);
    this.#readable.resolve();
  }

  /** No more chunks. A reader gets what is buffered, then the end, or `failure` if there is one. */
  close(failure?: { readonly error: unknown }): void {
    this.#failure ??= failure;
    this.#isClosed = true;
    this.#readable.resolve();
    this.#writable.resolve();
  }

  async *read(): AsyncGenerator {
    for (;;) {
      while (this.#buffer.length > 0) {
        const chunk = this.#buffer.shift();
        this.#writable.resolve();
        yield chunk;
      }
      if (this.#isClosed) break;
      this.#readable = Promise.withResolvers<void>();
      await this.#readable.promise;
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
