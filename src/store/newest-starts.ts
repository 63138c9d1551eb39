import { CjmError } from "../errors/index.ts";
import { isRecord } from "../util/record.ts";
import { openJournalForReading } from "./journal-file.ts";
import { nameDamage } from "./sqlite-fault.ts";

/** What a worker said of itself when it became ready. */
export interface WorkerStart {
  readonly capabilityName: string;
  /** ISO 8601. */
  readonly ts: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

interface Row {
  readonly capability_name: string;
  readonly ts: string;
  readonly payload: string;
}

/**
 * The newest starts of workers, newest first; none where there is no journal. Without the query
 * builder, whose loading would take longer than all else of a short command.
 *
 * @throws {CjmError} `DATABASE_CORRUPT` naming the file.
 */
export async function newestStarts(path: string, limit: number): Promise<readonly WorkerStart[]> {
  const sqlite = await openJournalForReading(path);
  if (sqlite === undefined) return [];
  try {
    return sqlite
      .prepare<[number], Row>(
        `select capability_name, ts, payload from journal
         where event_type = 'worker_ready' and capability_name is not null
         order by seq desc limit ?`,
      )
      .all(limit)
      .map((row) => ({ capabilityName: row.capability_name, ts: row.ts, payload: parsed(row) }));
  } catch (error) {
    throw nameDamage(error, path);
  } finally {
    sqlite.close();
  }
}

function parsed({ payload }: Row): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(payload);
    if (isRecord(value)) return value;
  } catch (cause) {
    throw new CjmError("DATABASE_CORRUPT", "A payload in the journal is no JSON", { cause });
  }
  throw new CjmError("DATABASE_CORRUPT", "A payload in the journal is no object");
}
