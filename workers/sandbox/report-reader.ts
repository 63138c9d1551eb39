import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";

/** Lines that the jail's first processes print, by their first word. */
export class ReportReader {
  readonly #seen = new Map<string, string>();
  readonly #waiting = new Set<() => void>();
  #isClosed = false;

  constructor(child: ChildProcess) {
    if (child.stdout === null) throw new TypeError("A jail needs its report stream");
    const lines = createInterface({ input: child.stdout });
    lines.on("line", (line) => {
      const space = line.indexOf(" ");
      const word = space === -1 ? line : line.slice(0, space + 1);
      if (this.#seen.size < 8) this.#seen.set(word, line.slice(word.length));
      this.#wake();
    });
    lines.on("close", () => {
      this.#isClosed = true;
      this.#wake();
    });
    child.on("error", () => lines.close());
  }

  /** True once nothing more can come: the jail is gone. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The rest of the line that begins with `word`, once it is there; undefined if it never comes. */
  async line(word: string): Promise<string | undefined> {
    while (!this.#seen.has(word) && !this.#isClosed && !this.#isPast(word)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.add(resolve);
      await promise;
    }
    return this.#seen.get(word);
  }

  /** The status is never printed after the sweep. */
  #isPast(word: string): boolean {
    return word === "status " && this.#seen.has("swept");
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}
