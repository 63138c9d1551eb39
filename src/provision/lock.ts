import { mkdirSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { CjmError } from "../errors/index.ts";

/**
 * Holds the right to change the environments of a data directory; the kernel frees it at death.
 *
 * Own it with `using`.
 *
 * @throws {CjmError} `DATA_DIR_LOCKED` while another process installs there.
 */
export function lockInstallation(dataDir: string): Disposable {
  mkdirSync(dataDir, { recursive: true });
  const database = new Database(join(dataDir, "install.lock"), { timeout: 0 });
  try {
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    throw new CjmError("DATA_DIR_LOCKED", `Another installation into ${dataDir} is running`, {
      cause: error,
    });
  }
  return { [Symbol.dispose]: () => void database.close() };
}
