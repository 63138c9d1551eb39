import { setImmediate as yieldToMessages } from "node:timers/promises";
import type { Database } from "better-sqlite3";
import type { Kind, RetentionResult } from "./diagnostics-records.ts";

const KINDS: readonly Kind[] = ["record", "chunk"];

/** Blocks deleted in one transaction; appends go between two of them. */
const DELETE_BATCH = 100;

/** Age first, then size; the oldest blocks of both tables together, in small transactions. */
export async function retain(
  sqlite: Database,
  { cutoff, maxBytes }: { readonly cutoff: string | null; readonly maxBytes: number | null },
): Promise<RetentionResult> {
  const deleted: Record<Kind, number> = { record: 0, chunk: 0 };
  const deleteUpTo = async (ts: string): Promise<void> => {
    for (const kind of KINDS) deleted[kind] += await deleteBlocks(sqlite, kind, ts);
  };
  if (cutoff !== null) await deleteUpTo(cutoff);
  const budget = maxBytes ?? Number.POSITIVE_INFINITY;
  while (usedBytes(sqlite) > budget) {
    const ts = oldestBatch(sqlite);
    if (ts === undefined) break;
    await deleteUpTo(ts);
  }
  sqlite.pragma("incremental_vacuum");
  sqlite.pragma("wal_checkpoint(TRUNCATE)");
  return { recordsDeleted: deleted.record, chunksDeleted: deleted.chunk };
}

/** @returns how many rows the deleted blocks held. */
async function deleteBlocks(sqlite: Database, kind: Kind, ts: string): Promise<number> {
  const statement = sqlite
    .prepare<[string, number], number>(
      `delete from ${kind}_blocks where last_seq in
         (select last_seq from ${kind}_blocks where last_ts <= ? order by last_ts limit ?)
       returning count`,
    )
    .pluck();
  let deleted = 0;
  for (;;) {
    const counts = statement.all(ts, DELETE_BATCH);
    for (const count of counts) deleted += count;
    if (counts.length < DELETE_BATCH) return deleted;
    await yieldToMessages();
  }
}

/** Time up to which about one batch of the oldest blocks lies; undefined when there is none. */
function oldestBatch(sqlite: Database): string | undefined {
  const nth = KINDS.map(
    (kind) =>
      `select * from (select last_ts from ${kind}_blocks order by last_ts limit 1 offset @offset)`,
  ).join(" union all ");
  const statement = sqlite
    .prepare<{ offset: number }, string | null>(`select min(last_ts) from (${nth})`)
    .pluck();
  for (const offset of [DELETE_BATCH, 10, 1, 0]) {
    const ts = statement.get({ offset });
    if (typeof ts === "string") return ts;
  }
  return undefined;
}

function usedBytes(sqlite: Database): number {
  const count = (name: string): number => Number(sqlite.pragma(name, { simple: true }));
  return (count("page_count") - count("freelist_count")) * count("page_size");
}
