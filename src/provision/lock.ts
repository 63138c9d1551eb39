import { mkdirSync } from "node:fs";
import { join } from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { CjmError, unwritable } from "../errors/index.ts";

/**
 * Holds the right to change the environments of a data directory; the kernel frees it at death.
 *
 * Own it with `using`.
 *
 * @throws {CjmError} `DATA_DIR_LOCKED` while another process installs there; `STORE_REJECTED` naming a
 *   directory that cannot be written.
 */
export function lockInstallation(dataDir: string): Disposable {
  const database = openLockFile(dataDir);
  try {
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (!isHeld(error)) throw unwritable(dataDir, error);
    throw new CjmError("DATA_DIR_LOCKED", `Another installation into ${dataDir} is running`, {
      cause: error,
    });
  }
  return { [Symbol.dispose]: () => void database.close() };
}

function isHeld(error: unknown): boolean {
  return error instanceof BetterSqlite3.SqliteError && error.code.startsWith("SQLITE_BUSY");
}

function openLockFile(dataDir: string): BetterSqlite3.Database {
  try {
    mkdirSync(dataDir, { recursive: true });
    return new BetterSqlite3(join(dataDir, "install.lock"), { timeout: 0 });
  } catch (error) {
    throw unwritable(dataDir, error);
  }
}
