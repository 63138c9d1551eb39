/** Events a reader may lag behind before it loses the oldest. */
const DEFAULT_CAPACITY = 1_000;

/**
 * Fan-out of events to any number of independent readers, each with its own topic.
 *
 * A slow reader loses its oldest events and counts them in `dropped`; it never slows the
 * publisher or another reader.
 */
export class EventStream<Event> {
  readonly #readers = new Map<string, Set<EventReader<Event>>>();

  get hasReaders(): boolean {
    return this.#readers.size > 0;
  }

  publish(topics: readonly string[], event: Event): void {
    for (const topic of topics) {
      for (const reader of this.#readers.get(topic) ?? []) reader.push(event);
    }
  }

  /** Ends every reader; what they hold is still delivered. */
  end(): void {
    for (const readers of this.#readers.values()) {
      for (const reader of readers) reader[Symbol.dispose]();
    }
  }

  /** Own the reader with `using`, or leave its loop: both unsubscribe it. */
  subscribe(topic: string, capacity = DEFAULT_CAPACITY): EventReader<Event> {
    const readers = this.#readers.get(topic) ?? new Set();
    this.#readers.set(topic, readers);
    const reader = new EventReader<Event>(capacity, () => {
      readers.delete(reader);
      if (readers.size === 0 && this.#readers.get(topic) === readers) this.#readers.delete(topic);
    });
    readers.add(reader);
    return reader;
  }
}

/** One subscription: an async iterable that ends when it is disposed. */
export class EventReader<Event> implements AsyncIterable<Event>, Disposable {
  readonly #capacity: number;
  readonly #unsubscribe: () => void;
  #buffer: Event[] = [];
  #dropped = 0;
  #isEnded = false;
  #wake = Promise.withResolvers<void>();

  constructor(capacity: number, unsubscribe: () => void) {
    this.#capacity = capacity;
    this.#unsubscribe = unsubscribe;
  }

  /** How many events this reader lost because it was slow. */
  get dropped(): number {
    return this.#dropped;
  }

  push(event: Event): void {
    if (this.#isEnded) return;
    if (this.#buffer.length >= this.#capacity) {
      this.#buffer.shift();
      this.#dropped += 1;
    }
    this.#buffer.push(event);
    this.#wake.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    try {
      while (!this.#isEnded || this.#buffer.length > 0) {
        const batch = this.#buffer;
        this.#buffer = [];
        yield* batch;
        if (this.#buffer.length > 0 || this.#isEnded) continue;
        this.#wake = Promise.withResolvers<void>();
        await this.#wake.promise;
      }
    } finally {
      this[Symbol.dispose]();
    }
  }

  [Symbol.dispose](): void {
    this.#isEnded = true;
    this.#unsubscribe();
    this.#wake.resolve();
  }
}
