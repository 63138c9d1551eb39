import { rm } from "node:fs/promises";
import Database from "better-sqlite3";
import { z } from "zod";
import type { InstanceServices } from "../services.ts";

const LOOK_EVERY_MS = 500;
const MAX_ROWS = 2_000;

const recordRow = z.object({
  seq: z.int(),
  ts: z.string(),
  job_id: z.string().nullable(),
  level: z.string(),
  logger_name: z.string(),
  message: z.string(),
  exc_text: z.string().nullable(),
});

/**
 * Copies the log records that a worker of the original writes into its private file into the
 * host's diagnostics, as long as the worker lives, and then deletes the file.
 *
 * What is in the file is the worker's word: rows that do not read as records are left out.
 */
export function followOriginalDiagnostics(
  path: string,
  follow: {
    readonly sessionId: string;
    readonly ended: Promise<unknown>;
    readonly diagnostics: InstanceServices["diagnostics"];
  },
): void {
  let last = 0;
  const look = (): void => {
    for (const row of readAfter(path, last)) {
      last = row.seq;
      follow.diagnostics.appendRecord({
        message: row.message,
        level: row.level.toLowerCase(),
        loggerName: row.logger_name,
        ts: row.ts,
        workerSessionId: follow.sessionId,
        jobId: row.job_id,
        excText: row.exc_text,
      });
    }
  };
  const timer = setInterval(look, LOOK_EVERY_MS);
  timer.unref();
  void follow.ended.then(async () => {
    clearInterval(timer);
    look();
    const files = ["", "-wal", "-shm", "-journal"].map((suffix) => `${path}${suffix}`);
    await Promise.all(files.map((file) => rm(file, { force: true })));
  });
}

/** Nothing where the file is not there yet, is being written, or is no such database. */
function readAfter(path: string, seq: number): z.output<typeof recordRow>[] {
  let database: Database.Database;
  try {
    database = new Database(path, { readonly: true, fileMustExist: true, timeout: 50 });
  } catch {
    return [];
  }
  try {
    const rows = database
      .prepare("SELECT * FROM records WHERE seq > ? ORDER BY seq LIMIT ?")
      .all(seq, MAX_ROWS);
    return rows.flatMap((row) => recordRow.safeParse(row).data ?? []);
  } catch {
    return [];
  } finally {
    database.close();
  }
}
