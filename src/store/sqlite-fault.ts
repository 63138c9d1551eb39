import { SqliteError } from "better-sqlite3";
import { CjmError } from "../errors/index.ts";

/** The row itself is at fault; any other failure is the database's and may pass. */
export function isRowFault(error: unknown): boolean {
  if (!(error instanceof SqliteError)) return true;
  return /^SQLITE_(?:CONSTRAINT|MISMATCH|TOOBIG|RANGE)/u.test(error.code);
}

/** What a unit that cannot be written is rejected with. */
export function rejected(error: unknown): CjmError {
  const reason = error instanceof Error ? error.message : String(error);
  return new CjmError("STORE_REJECTED", `A row could not be written: ${reason}`, { cause: error });
}

/** The file is damaged or is no database. */
export function isDamage(error: unknown): boolean {
  return error instanceof SqliteError && /^SQLITE_(?:CORRUPT|NOTADB)/u.test(error.code);
}

/** Another connection holds a lock. */
export function isBusy(error: unknown): boolean {
  return error instanceof SqliteError && error.code.startsWith("SQLITE_BUSY");
}

/** A column or table that every statement of ours has: the schema is not the one we made. */
function isForeignSchema(error: unknown): boolean {
  return error instanceof SqliteError && /^no such (?:column|table)/u.test(error.message);
}

/** A row that no code of ours has written. */
function isUnreadableRow(error: unknown): error is CjmError {
  return (
    error instanceof CjmError && error.code === "DATABASE_CORRUPT" && !("path" in error.details)
  );
}

/** `DATABASE_CORRUPT` with the file's name for damage, anything else unchanged; never repaired. */
export function nameDamage(error: unknown, path: string): unknown {
  const isNamed = isDamage(error) || isForeignSchema(error) || isUnreadableRow(error);
  return isNamed ? damageError(error, path) : error;
}

/** What keeps a file from being opened, with its name: damage, or a disk that is full or read-only. */
export function nameOpenFault(error: unknown, path: string): unknown {
  if (!(error instanceof SqliteError)) return error;
  // A table or a column that is not there: the schema is not the one we made.
  if (isDamage(error) || error.code === "SQLITE_ERROR") return damageError(error, path);
  return new CjmError("STORE_REJECTED", `${path} cannot be opened: ${error.message}`, {
    cause: error,
    details: { path },
  });
}

function damageError(error: unknown, path: string): CjmError {
  const reason = error instanceof Error ? error.message : String(error);
  return new CjmError(
    "DATABASE_CORRUPT",
    `${path} is damaged (${reason}). It is left as it is: restore it from a backup, or move it away to begin a new one`,
    { cause: error, details: { path } },
  );
}
