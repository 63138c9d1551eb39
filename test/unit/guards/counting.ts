/**
 * Counts what code does with a structure of plain objects: every look at a map, a set or an element
 * of an array that is in it, and every member that is visited. Shared references stay shared.
 */
export class Looks {
  count = 0;
  readonly #made = new Map<object, unknown>();

  /** Replaces, inside `root`, what can be counted. */
  watch(root: object): void {
    for (const [key, value] of Object.entries(root)) {
      const watched = this.#watched(value);
      if (watched !== value) Object.defineProperty(root, key, { value: watched, writable: true });
    }
  }

  #watched(value: unknown): unknown {
    if (typeof value !== "object" || value === null) return value;
    if (!this.#made.has(value)) this.#made.set(value, this.#replacement(value));
    return this.#made.get(value);
  }

  #replacement(value: object): unknown {
    const tell = (): void => {
      this.count += 1;
    };
    if (value instanceof Map) {
      const entries = [...value].map(([key, member]) => [key, this.#watched(member)] as const);
      return new CountedMap(entries, tell);
    }
    if (value instanceof Set) return new CountedSet([...value], tell);
    if (Array.isArray(value)) {
      return new Proxy(
        value.map((member) => this.#watched(member)),
        {
          get: (target, key): unknown => {
            if (typeof key === "string" && /^\d+$/u.test(key)) tell();
            return Reflect.get(target, key);
          },
        },
      );
    }
    // Before its members, which may lead back to it.
    this.#made.set(value, value);
    this.watch(value);
    return value;
  }
}

class CountedMap<K, V> extends Map<K, V> {
  readonly #tell: () => void;

  constructor(entries: readonly (readonly [K, V])[], tell: () => void) {
    super();
    this.#tell = tell;
    for (const [key, value] of entries) super.set(key, value);
  }

  override get(key: K): V | undefined {
    this.#tell();
    return super.get(key);
  }

  override *[Symbol.iterator](): MapIterator<[K, V]> {
    for (const entry of super.entries()) {
      this.#tell();
      yield entry;
    }
  }

  override entries(): MapIterator<[K, V]> {
    return this[Symbol.iterator]();
  }

  override *keys(): MapIterator<K> {
    for (const [key] of this) yield key;
  }

  override *values(): MapIterator<V> {
    for (const [, value] of this) yield value;
  }
}

class CountedSet<T> extends Set<T> {
  readonly #tell: () => void;

  constructor(members: readonly T[], tell: () => void) {
    super();
    this.#tell = tell;
    for (const member of members) super.add(member);
  }

  override has(member: T): boolean {
    this.#tell();
    return super.has(member);
  }

  override *[Symbol.iterator](): SetIterator<T> {
    for (const member of super.values()) {
      this.#tell();
      yield member;
    }
  }

  override values(): SetIterator<T> {
    return this[Symbol.iterator]();
  }
}
