import { failure } from "../failure.ts";

/**
 * A signal that aborts when a server has shown no sign of life for too long. Own it with `using`.
 */
export class Watchdog implements Disposable {
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Starts over: `what` has to come within `ms`. */
  expect(what: string, ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const seconds = ms / 1000;
      this.#controller.abort(
        failure("server_hangs", `The server sent no ${what} for ${seconds} s`, {
          details: { waited_seconds: seconds },
        }),
      );
    }, ms);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
