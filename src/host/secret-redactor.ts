import { createRedactor } from "../store/index.ts";

/** Takes every secret out of a text that this host has known since it started, replaced ones too. */
export class SecretRedactor {
  readonly #values: Set<string>;
  #apply: (text: string) => string;

  constructor(values: readonly string[]) {
    this.#values = new Set(values);
    this.#apply = createRedactor([...this.#values]);
  }

  readonly redact = (text: string): string => this.#apply(text);

  /** Adds values; those known before stay, for a worker that still runs may print them. */
  learn(values: readonly string[]): void {
    const added = values.filter((value) => !this.#values.has(value));
    if (added.length === 0) return;
    for (const value of added) this.#values.add(value);
    this.#apply = createRedactor([...this.#values]);
  }
}
