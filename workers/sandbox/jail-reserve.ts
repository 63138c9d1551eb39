import { statSync } from "node:fs";
import { Jail, type JailEngine } from "./jail.ts";
import { INPUT_FOLDER, type JailPolicy, type Mount } from "./policy.ts";

/** A jail that waits, or is being set up, for a run that has not been asked for yet. */
interface Kept {
  readonly key: string;
  /** Undefined when it could not be set up. */
  readonly jail: Promise<Jail | undefined>;
  readonly controller: AbortController;
}

/** An engine for runs, which share what is kept ready. */
export interface RunEngine extends JailEngine {
  readonly reserve: JailReserve;
}

/**
 * Keeps at most one jail ready, so that a run like the two before it need not wait for the set-up.
 *
 * Nothing has run in a jail that is kept, and each is given to one run only. One that nobody takes
 * is ended after `keepMs`. Whatever goes wrong with it, the run gets an ordinary jail.
 */
export class JailReserve implements AsyncDisposable {
  readonly #keepMs: number;
  #kept: Kept | undefined;
  #idleTimer: NodeJS.Timeout | undefined;
  #offerTimer: NodeJS.Immediate | undefined;
  readonly #ending = new Set<Promise<void>>();
  #lastKey: string | undefined;
  #isRepeated = false;
  #isClosed = false;

  /** With 0 ms nothing is kept. */
  constructor(keepMs: number) {
    this.#keepMs = keepMs;
  }

  /**
   * A jail at its gate for this policy: the kept one where it is of the same kind, else a new one.
   *
   * @throws what `Jail.start` throws.
   */
  async take(engine: JailEngine, policy: JailPolicy, signal: AbortSignal): Promise<Jail> {
    const key = kindOf(engine, policy);
    this.#isRepeated = key === this.#lastKey;
    this.#lastKey = key;
    const kept = this.#kept;
    if (kept === undefined || kept.key !== key) return Jail.start(engine, policy, signal);
    this.#forget();
    const onAbort = (): void => kept.controller.abort();
    signal.addEventListener("abort", onAbort);
    const jail = await kept.jail;
    signal.removeEventListener("abort", onAbort);
    if (jail?.isAlive === true && !signal.aborted) return jail;
    await jail?.[Symbol.asyncDispose]();
    return Jail.start(engine, policy, signal);
  }

  /**
   * Sets up the jail for the next run, in the background, if runs of this kind follow each other.
   * Call it when a run has ended.
   */
  offer(engine: JailEngine, policy: JailPolicy): void {
    const key = kindOf(engine, policy);
    const isWanted = key !== undefined && key === this.#lastKey && this.#isRepeated;
    if (!isWanted || this.#isClosed || this.#keepMs === 0) return;
    // The ended run's result goes out first.
    this.#offerTimer ??= setImmediate(() => {
      this.#offerTimer = undefined;
      if (this.#kept?.key !== key) this.#prepare(key, engine, policy);
    });
  }

  /** The first process of the kept jail, once that waits at its gate; undefined where there is none. */
  async ready(): Promise<number | undefined> {
    while (this.#offerTimer !== undefined) await new Promise(setImmediate);
    return (await this.#kept?.jail)?.initPid;
  }

  /** Ends the kept jail and resolves when nothing of any is left. */
  async clear(): Promise<void> {
    clearImmediate(this.#offerTimer);
    this.#offerTimer = undefined;
    this.#end();
    await Promise.all(this.#ending);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.clear();
  }

  #prepare(key: string, engine: JailEngine, policy: JailPolicy): void {
    this.#end();
    const controller = new AbortController();
    const jail = Jail.start(engine, policy, controller.signal).catch(() => undefined);
    const kept = { key, jail, controller };
    this.#kept = kept;
    void jail.then((started) => {
      if (this.#kept !== kept) return;
      if (started === undefined) this.#forget();
      else this.#idleTimer = setTimeout(() => this.#end(), this.#keepMs);
    });
  }

  #forget(): void {
    clearTimeout(this.#idleTimer);
    this.#kept = undefined;
  }

  #end(): void {
    const kept = this.#kept;
    if (kept === undefined) return;
    this.#forget();
    kept.controller.abort();
    const ending = kept.jail
      .then((jail) => jail?.[Symbol.asyncDispose]())
      .finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }
}

/**
 * What a jail is set up from, so that one of the same kind is the same jail; undefined where a
 * caller's folders are in it. Folders are named by what they are and not only by their path: one
 * that was replaced since would be shown as it was.
 */
function kindOf({ backend }: JailEngine, policy: JailPolicy): string | undefined {
  const { mounts, identity, workSource, hasChannel = false } = policy;
  if (workSource !== undefined || mounts.some((mount) => isCallers(mount))) return undefined;
  const { memoryMb, pids, diskMb } = policy.limits;
  const shown = mounts.map((mount) => [mount, identityOf(mount)]);
  return JSON.stringify([backend.name, identity, hasChannel, memoryMb, pids, diskMb, shown]);
}

function isCallers({ kind, target }: Mount): boolean {
  return kind === "rw" || target.startsWith(`${INPUT_FOLDER}/`);
}

function identityOf(mount: Mount): string | undefined {
  if (mount.kind !== "ro") return undefined;
  const stats = statSync(mount.source, { throwIfNoEntry: false });
  return `${stats?.dev}:${stats?.ino}`;
}
