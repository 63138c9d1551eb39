import type { Database } from "better-sqlite3";
import { ContentFiles, type Finding } from "./content-files.ts";
import { lockFolder, openDatabase } from "./database.ts";
import type { AdapterFolder } from "./adapter-folder.ts";
import { AdapterAlreadyExistsError, AdapterInvalidError, AdapterNotFoundError } from "./faults.ts";
import { lineage, lineageDag, type ParentsOf } from "./lineage.ts";
import type {
  AdapterRecord,
  Decision,
  DecisionKind,
  Evidence,
  Standing,
  StoredRecord,
} from "./record.ts";
import { type NewDecision, Rows } from "./rows.ts";
import type { Query, StoreFacts } from "./schemas.ts";

/** Who asks: a repeated job is answered with what it did the first time. */
export interface Asker {
  readonly jobId: string | undefined;
  readonly signal: AbortSignal;
}

/** Why something is decided, and by which numbers. */
export interface Grounds {
  readonly reason: string;
  readonly evidence: Evidence;
}

/** An adapter that is stored already, or what is to be stored. */
type Admission =
  | { readonly kind: "present"; readonly record: StoredRecord }
  | { readonly kind: "new"; readonly record: StoredRecord };

/**
 * The registry of one folder: write-once records and files, one writer.
 *
 * An adapter is there completely or not at all: its content is noted, copied, hashed again and renamed
 * into its place before one transaction adds the record and drops the note. What a killed writer has
 * noted and not recorded is removed when the registry is opened.
 */
export class AdapterRegistry implements Disposable {
  readonly files: ContentFiles;
  readonly #rows: Rows;
  #owned = new DisposableStack();
  #writes: Promise<unknown> = Promise.resolve();

  private constructor(rows: Rows, files: ContentFiles) {
    this.#rows = rows;
    this.files = files;
  }

  /**
   * Takes the folder for this process, making it if needed.
   *
   * @throws {CjmError} `DATA_DIR_LOCKED` if another worker keeps it; `DATABASE_CORRUPT`,
   *   `DATABASE_NEWER`.
   */
  static async open(folder: string, signal: AbortSignal): Promise<AdapterRegistry> {
    using owned = new DisposableStack();
    owned.use(await lockFolder(folder, signal));
    const database: Database = owned.adopt(openDatabase(folder), (open) => open.close());
    const registry = new AdapterRegistry(new Rows(database), new ContentFiles(folder));
    for (const hash of registry.#rows.expected()) await registry.#discard(hash);
    registry.#owned = owned.move();
    return registry;
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  /** @throws {AdapterAlreadyExistsError} before a byte is written. */
  store(
    open: () => Promise<AdapterFolder>,
    facts: StoreFacts,
    asker: Asker,
  ): Promise<{ readonly record: AdapterRecord; readonly stored: boolean }> {
    return this.#alone(async () => {
      const earlier = this.#earlier("stored", asker);
      if (earlier !== undefined) return { record: earlier, stored: true };
      const folder = await open();
      const { kind, record } = this.#admit(folder, facts);
      if (kind === "present") return { record: this.#withPath(record), stored: false };
      const evidence = { file_hash: record.file_hash, parent_ids: record.parent_ids };
      const reason = `from ${record.source}`;
      const decision = newDecision(record.id, "stored", { reason, evidence }, asker);
      await this.#add(folder, { record, decisions: [decision] }, asker);
      return { record: this.#withPath(record), stored: true };
    });
  }

  /** Takes over a record of another registry as it is. False: it is here already. */
  adopt(
    folder: AdapterFolder,
    {
      record,
      decisions,
    }: { readonly record: StoredRecord; readonly decisions: readonly Decision[] },
    asker: Asker,
  ): Promise<boolean> {
    return this.#alone(async () => {
      if (this.findConflict(record) === "present") return false;
      const grounds = { reason: "from another registry", evidence: {} };
      await this.#add(
        folder,
        {
          record,
          decisions: [
            ...decisions.map((decision) => ({ ...decision, adapter_id: record.id })),
            newDecision(record.id, "imported", grounds, asker),
          ],
        },
        asker,
      );
      return true;
    });
  }

  /** Whether this very adapter is here. @throws {AdapterAlreadyExistsError} for another one in its place. */
  findConflict({ id, file_hash: hash }: StoredRecord): "present" | "absent" {
    const taken = this.#rows.byId(id) ?? this.#rows.byHash(hash);
    if (taken === undefined) return "absent";
    if (taken.id === id && taken.file_hash === hash) return "present";
    throw alreadyExists(taken, id);
  }

  /** @throws {AdapterNotFoundError} */
  retrieveById(id: string): { readonly record: AdapterRecord; readonly decisions: Decision[] } {
    return { record: this.#require(id), decisions: this.#rows.decisions(id) };
  }

  query({ limit, ...filter }: Query): AdapterRecord[] {
    return this.#select((record) => matches(record, filter)).slice(0, limit);
  }

  /** The fittest first, the older of equals. */
  best(taskType: string, topK: number, level: StoredRecord["level"] | undefined): AdapterRecord[] {
    return this.#select(
      (record) =>
        record.task_type === taskType &&
        !record.is_archived &&
        record.fitness_score !== null &&
        (level === undefined || record.level === level),
    )
      .toSorted((a, b) => (b.fitness_score ?? 0) - (a.fitness_score ?? 0))
      .slice(0, topK);
  }

  taskTypes(): string[] {
    return [...new Set(this.#rows.all().map(({ task_type: type }) => type))].toSorted();
  }

  /** The adapter that solves a task, if one does. */
  solverOf(trainingTaskHash: string, threshold: number): AdapterRecord | undefined {
    return this.#select(
      (record) =>
        !record.is_archived &&
        record.training_task_hash === trainingTaskHash &&
        record.pass_rate !== null &&
        record.pass_rate >= threshold,
    ).toSorted((a, b) => (b.pass_rate ?? 0) - (a.pass_rate ?? 0))[0];
  }

  /**
   * Changes where an adapter stands, with a decision that says why; false where it stands there
   * already. @throws {AdapterNotFoundError}
   */
  decide(
    id: string,
    kind: Exclude<DecisionKind, "stored" | "imported">,
    { change, grounds }: { readonly change: Partial<Standing>; readonly grounds: Grounds },
    asker: Asker,
  ): Promise<{ readonly record: AdapterRecord; readonly decided: boolean }> {
    return this.#alone(() => {
      const record = this.#require(id);
      if (this.#earlier(kind, asker) !== undefined) return { record, decided: true };
      if (kind === "archived" && record.is_archived) return { record, decided: false };
      if (kind === "promoted" && record.is_archived) {
        throw new AdapterInvalidError(`"${id}" is archived and cannot be promoted`, { id });
      }
      this.#rows.decide(newDecision(id, kind, grounds, asker), change);
      return { record: this.#require(id), decided: true };
    });
  }

  /** @throws {AdapterNotFoundError} */
  lineage(id: string): string[] {
    this.#require(id);
    return lineage(id, this.#parentsOf());
  }

  /** @throws {AdapterNotFoundError} */
  lineageDag(id: string): Record<string, readonly string[]> {
    this.#require(id);
    return lineageDag(id, this.#parentsOf());
  }

  /** Hashes every file of these adapters, or of all; `strays` are contents that no record has. */
  async verify(ids?: readonly string[]): Promise<{
    readonly adapters: readonly (Finding & { readonly id: string })[];
    readonly strays: readonly string[];
  }> {
    const records = ids?.map((id) => this.#require(id)) ?? this.#rows.all();
    const adapters: (Finding & { id: string })[] = [];
    for (const { id, file_hash: hash, files } of records) {
      adapters.push({ id, ...(await this.files.verify(hash, files)) });
    }
    if (ids !== undefined) return { adapters, strays: [] };
    const known = new Set(this.#rows.all().map(({ file_hash: hash }) => hash));
    const strays = (await this.files.hashes()).filter((hash) => !known.has(hash));
    return { adapters, strays: strays.map((hash) => this.files.path(hash)) };
  }

  #admit({ source, rank, baseModelId, bytes }: AdapterFolder, facts: StoreFacts): Admission {
    const { sha256: hash, files, path } = source.data;
    const hex = hash.slice("sha256:".length);
    const id = facts.id ?? `${idPart(facts.task_type)}-${hex.slice(0, 12)}`;
    const taken = this.#rows.byId(id) ?? this.#rows.byHash(hash);
    if (taken !== undefined) {
      const isSame = taken.file_hash === hash && (facts.id === undefined || taken.id === id);
      if (isSame && facts.on_duplicate === "return") return { kind: "present", record: taken };
      throw alreadyExists(taken, id);
    }
    const parents = facts.parent_ids.map((parent) => this.#require(parent));
    if (facts.rank !== undefined && facts.rank !== rank) {
      throw new AdapterInvalidError(`${path} has rank ${rank}, not ${facts.rank}`, { rank });
    }
    const generation = Math.max(-1, ...parents.map((parent) => parent.generation)) + 1;
    const { on_duplicate: _, ...rest } = facts;
    return {
      kind: "new",
      record: {
        ...rest,
        id,
        base_model_id: facts.base_model_id ?? baseModelId ?? "",
        rank,
        created_at: new Date().toISOString(),
        file_hash: hash,
        file_size_bytes: bytes,
        files: [...files],
        generation,
        is_archived: false,
        level: "task",
        domain: null,
      },
    };
  }

  async #add(
    { source }: AdapterFolder,
    addition: { readonly record: StoredRecord; readonly decisions: readonly NewDecision[] },
    { signal }: Asker,
  ): Promise<void> {
    const { record, decisions } = addition;
    this.#rows.expect(record.file_hash, new Date().toISOString());
    try {
      await this.files.take(source, signal);
      this.#rows.add(record, decisions);
    } catch (error) {
      await this.#discard(record.file_hash);
      throw error;
    }
  }

  async #discard(hash: string): Promise<void> {
    await this.files.discard(hash);
    this.#rows.forget(hash);
  }

  #earlier(kind: DecisionKind, { jobId }: Asker): AdapterRecord | undefined {
    const record = jobId === undefined ? undefined : this.#rows.byJob(jobId, kind);
    return record === undefined ? undefined : this.#withPath(record);
  }

  #require(id: string): AdapterRecord {
    const record = this.#rows.byId(id);
    if (record === undefined) throw new AdapterNotFoundError(id);
    return this.#withPath(record);
  }

  #select(wanted: (record: StoredRecord) => boolean): AdapterRecord[] {
    return this.#rows
      .all()
      .filter(wanted)
      .map((record) => this.#withPath(record));
  }

  #withPath(record: StoredRecord): AdapterRecord {
    return { ...record, file_path: this.files.path(record.file_hash) };
  }

  #parentsOf(): ParentsOf {
    const parents = new Map(this.#rows.all().map((record) => [record.id, record.parent_ids]));
    return (id) => parents.get(id);
  }

  /** One write after another: what is checked first must still hold when it is written. */
  #alone<Result>(write: () => Promise<Result> | Result): Promise<Result> {
    const turn = this.#writes.then(write);
    this.#writes = turn.catch(() => undefined);
    return turn;
  }
}

function newDecision(
  id: string,
  kind: DecisionKind,
  { reason, evidence }: Grounds,
  { jobId }: Asker,
): NewDecision {
  const ts = new Date().toISOString();
  return { ts, adapter_id: id, kind, reason, evidence, job_id: jobId ?? null };
}

function alreadyExists(taken: StoredRecord, id: string): AdapterAlreadyExistsError {
  const message =
    taken.id === id
      ? `There is an adapter "${id}" already, with the content ${taken.file_hash}`
      : `The content ${taken.file_hash} is stored already, as "${taken.id}"`;
  return new AdapterAlreadyExistsError(message, { id: taken.id, file_hash: taken.file_hash });
}

function matches(record: StoredRecord, filter: Omit<Query, "limit">): boolean {
  const { include_archived: withArchived, unevaluated, parent_ids: parents } = filter;
  if (record.is_archived && !withArchived) return false;
  if (unevaluated && record.pass_rate !== null) return false;
  if (parents !== undefined && !isSameSet(parents, record.parent_ids)) return false;
  const equal = ["task_type", "base_model_id", "source", "level", "domain"] as const;
  return equal.every((key) => filter[key] === undefined || filter[key] === record[key]);
}

function isSameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.every((id) => b.includes(id)) && b.every((id) => a.includes(id));
}

/** A task type as the beginning of an id. */
function idPart(taskType: string): string {
  const word = taskType.replaceAll(/[^A-Za-z0-9._-]+/gu, "-").replace(/^[^A-Za-z0-9]+/u, "");
  return word.slice(0, 100) || "adapter";
}
