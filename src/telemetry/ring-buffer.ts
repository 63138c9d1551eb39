/** The last `capacity` items, oldest first; counts what it had to drop. */
export class RingBuffer<Item> {
  readonly #items: Item[] = [];
  readonly #capacity: number;
  #next = 0;
  dropped = 0;

  constructor(capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1) {
      throw new TypeError(`A ring buffer of ${capacity} items cannot exist`);
    }
    this.#capacity = capacity;
  }

  push(item: Item): void {
    if (this.#items.length === this.#capacity) this.dropped += 1;
    this.#items[this.#next] = item;
    this.#next = (this.#next + 1) % this.#capacity;
  }

  toArray(): readonly Item[] {
    return [...this.#items.slice(this.#next), ...this.#items.slice(0, this.#next)];
  }
}
