import type { Database, Statement } from "better-sqlite3";
import { CjmError } from "../errors/index.ts";
import { isRowFault, rejected } from "./sqlite-fault.ts";
import type { PreparedWrite } from "./table-writer.ts";

/** Runs `callback` once after `delayMs`; the answer calls it off. */
export type Schedule = (callback: () => void, delayMs: number) => () => void;

export interface GroupCommitOptions {
  readonly probeIntervalMs: number;
  readonly schedule: Schedule;
}

interface Unit {
  readonly writes: readonly PreparedWrite[];
  /** Rowid of each write, in order. */
  rowIds: number[];
  /** Why this unit was refused. */
  fault: unknown;
  readonly settled: PromiseWithResolvers<readonly number[]>;
}

/**
 * Commits everything staged in one turn of the event loop in one transaction.
 *
 * One commit costs one fsync however many units share it; that is what makes full durability
 * affordable. Units keep their order and are all or nothing, each for itself.
 */
export class GroupCommit {
  readonly #sqlite: Database;
  readonly #begin: Statement<[]>;
  readonly #finish: Statement<[]>;
  readonly #options: GroupCommitOptions;
  readonly #listeners = new Set<(available: boolean) => void>();
  #staged: Unit[] = [];
  /** Of the staged writes that replace one another, the last. */
  readonly #latest = new Map<string, PreparedWrite>();
  #flushScheduled = false;
  #available = true;
  #closed = false;
  #lastFailure: unknown;
  #cancelProbe: (() => void) | undefined;

  constructor(sqlite: Database, options: GroupCommitOptions) {
    this.#sqlite = sqlite;
    this.#begin = sqlite.prepare("BEGIN IMMEDIATE");
    this.#finish = sqlite.prepare("COMMIT");
    this.#options = options;
  }

  get available(): boolean {
    return this.#available;
  }

  onAvailability(listener: (available: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves with the rowid of each write once the transaction that holds them is committed. */
  add(writes: readonly PreparedWrite[]): Promise<readonly number[]> {
    if (this.#closed) return Promise.reject(this.#unavailable());
    const settled = Promise.withResolvers<readonly number[]>();
    for (const write of writes)
      if (write.replaces !== null) this.#latest.set(write.replaces, write);
    this.#staged.push({ writes, rowIds: [], fault: undefined, settled });
    if (this.#available && !this.#flushScheduled) {
      this.#flushScheduled = true;
      setImmediate(() => {
        this.#flushScheduled = false;
        if (this.#available) this.#flush();
      });
    }
    return settled.promise;
  }

  /** Commits what is staged; what cannot be committed is rejected. */
  close(): void {
    if (this.#closed) return;
    this.#flush();
    this.#closed = true;
    this.#cancelProbe?.();
    for (const unit of this.#staged.splice(0)) unit.settled.reject(this.#unavailable());
  }

  #flush(): void {
    if (this.#staged.length === 0) return;
    try {
      this.#commit(this.#staged);
    } catch (error) {
      this.#hold(error);
      return;
    }
    const units = this.#staged;
    this.#staged = [];
    this.#latest.clear();
    for (const unit of units) {
      if (unit.fault === undefined) unit.settled.resolve(unit.rowIds);
      else unit.settled.reject(unit.fault);
    }
    this.#setAvailable(true);
  }

  #commit(units: readonly Unit[]): void {
    try {
      this.#transaction(() => {
        for (const unit of units) this.#run(unit);
      });
    } catch (error) {
      if (!isRowFault(error)) throw error;
      // Some row is bad. Which one decides whose unit fails; the others must not pay for it.
      this.#latest.clear();
      this.#transaction(() => {
        for (const unit of units) this.#runApart(unit);
      });
    }
  }

  #transaction(body: () => void): void {
    this.#begin.run();
    try {
      body();
      this.#finish.run();
    } catch (error) {
      // A full disk makes SQLite roll back by itself.
      if (this.#sqlite.inTransaction) this.#sqlite.exec("ROLLBACK");
      throw error;
    }
  }

  #run(unit: Unit): void {
    unit.fault = undefined;
    unit.rowIds = unit.writes.map((write) => {
      const { statement, parameters, expects, replaces } = write;
      if (replaces !== null && (this.#latest.get(replaces) ?? write) !== write) return 0;
      const values = typeof parameters === "function" ? parameters() : parameters;
      const { changes, lastInsertRowid } = statement.run(values);
      if (changes === 0 && expects !== null) {
        throw new TypeError(`${expects} "${values.at(-1)}" does not exist`);
      }
      return Number(lastInsertRowid);
    });
  }

  #runApart(unit: Unit): void {
    this.#sqlite.exec("SAVEPOINT unit");
    try {
      this.#run(unit);
      this.#sqlite.exec("RELEASE unit");
    } catch (error) {
      if (!isRowFault(error)) throw error;
      this.#sqlite.exec("ROLLBACK TO unit");
      this.#sqlite.exec("RELEASE unit");
      unit.fault = rejected(error);
    }
  }

  /** The held units themselves are the probe: a write that succeeds is one of theirs. */
  #hold(error: unknown): void {
    this.#lastFailure = error;
    this.#setAvailable(false);
    this.#cancelProbe?.();
    this.#cancelProbe = this.#options.schedule(() => this.#flush(), this.#options.probeIntervalMs);
  }

  #setAvailable(available: boolean): void {
    if (available === this.#available) return;
    this.#available = available;
    for (const listener of this.#listeners) listener(available);
  }

  #unavailable(): CjmError {
    const reason = this.#lastFailure instanceof Error ? `: ${this.#lastFailure.message}` : "";
    return new CjmError("JOURNAL_UNAVAILABLE", `The journal was closed before a commit${reason}`, {
      cause: this.#lastFailure,
    });
  }
}
