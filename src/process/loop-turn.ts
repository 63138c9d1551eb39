/** How long one turn of the event loop may be spent on what workers send, in milliseconds. */
const TURN_MS = 5;

/**
 * The part of each turn of the event loop that is spent on reading workers: whoever reads in a loop
 * asks for time before each step, and waits for the next turn when there is none left.
 *
 * One for all workers of a process: a hundred connections that each take only a little would hold
 * the loop together.
 */
export class LoopTurn {
  readonly #now: () => number;
  readonly #waiting: (() => void)[] = [];
  #endsAt: number | undefined;

  /** @param now milliseconds of a clock that never goes back. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** False when this turn's part is used up. */
  get hasTime(): boolean {
    return this.#started() > this.#now();
  }

  /** Runs `resume` in a later turn, after all who have waited longer. */
  wait(resume: () => void): void {
    this.#waiting.push(resume);
    this.#started();
  }

  #started(): number {
    if (this.#endsAt === undefined) {
      this.#endsAt = this.#now() + TURN_MS;
      setImmediate(this.#begin);
    }
    return this.#endsAt;
  }

  readonly #begin = (): void => {
    this.#endsAt = undefined;
    while (this.#waiting.length > 0 && this.hasTime) this.#waiting.shift()?.();
  };
}

export const loopTurn = new LoopTurn();

/** Resolves in a turn that has time. */
export async function nextTurn(turn: LoopTurn = loopTurn): Promise<void> {
  await new Promise<void>((resolve) => {
    turn.wait(resolve);
  });
}
