import { existsSync } from "node:fs";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import BetterSqlite3, { type Database } from "better-sqlite3";
import { z } from "zod";
import { CjmError, unwritable } from "../errors/index.ts";
import { replaceFile } from "../util/replace-file.ts";
import { isBusy, nameDamage } from "./sqlite-fault.ts";

const LOCK_FILE = "host.lock";
const INFO_FILE = "host.json";

/** A reader holds the file for microseconds; whoever keeps it longer is a host. */
const PATIENCE_MS = 500;

const hostInfoSchema = z.object({
  pid: z.int(),
  /** Path of the host's control socket; absent while it has none. */
  door: z.string().nullable(),
});
/** Who holds a data directory. */
export type HostInfo = z.output<typeof hostInfoSchema>;

/** The right to write in a data directory. The kernel takes it back when the process dies. */
export interface HostLock extends AsyncDisposable {
  /** Tells others where this host's door is, once it is open. */
  announce(info: HostInfo): Promise<void>;
}

/**
 * Takes the data directory for this process, making the directory if needed.
 *
 * The lock is SQLite's exclusive file lock: the kernel frees it with the process, so a text file
 * left by a host that was killed locks nobody out.
 *
 * @throws {CjmError} `DATA_DIR_LOCKED` naming the pid and the door of the host that has it;
 *   `STORE_REJECTED` naming a directory that cannot be written.
 */
export async function acquireHostLock(dataDir: string, info: HostInfo): Promise<HostLock> {
  const sqlite = await openLockFile(dataDir);
  try {
    sqlite.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    sqlite.close();
    if (!isBusy(error)) throw unwritable(dataDir, nameDamage(error, join(dataDir, LOCK_FILE)));
    throw await lockedError(dataDir, error);
  }
  try {
    await writeInfo(dataDir, info);
  } catch (error) {
    sqlite.close();
    throw unwritable(dataDir, error);
  }
  return {
    announce: (next) => writeInfo(dataDir, next),
    async [Symbol.asyncDispose](): Promise<void> {
      await rm(join(dataDir, INFO_FILE), { force: true });
      sqlite.close();
    },
  };
}

async function openLockFile(dataDir: string): Promise<Database> {
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    return new BetterSqlite3(join(dataDir, LOCK_FILE), { timeout: PATIENCE_MS });
  } catch (error) {
    throw unwritable(dataDir, error);
  }
}

/** The live host of a data directory, or undefined where there is none. Changes nothing. */
export async function readHostInfo(dataDir: string): Promise<HostInfo | undefined> {
  if (!isHeld(join(dataDir, LOCK_FILE))) return undefined;
  return readInfo(dataDir);
}

function isHeld(lockFile: string): boolean {
  if (!existsSync(lockFile)) return false;
  using cleanup = new DisposableStack();
  const sqlite = new BetterSqlite3(lockFile, { readonly: true, timeout: 0 });
  cleanup.defer(() => sqlite.close());
  try {
    sqlite.prepare("select count(*) from sqlite_schema").get();
    return false;
  } catch (error) {
    if (isBusy(error)) return true;
    throw error;
  }
}

async function lockedError(dataDir: string, cause: unknown): Promise<CjmError> {
  const host = await readInfo(dataDir);
  const who = host === undefined ? "another host" : `the host with pid ${host.pid}`;
  const door = host?.door === undefined || host.door === null ? "" : ` (door ${host.door})`;
  return new CjmError("DATA_DIR_LOCKED", `${dataDir} is in use by ${who}${door}`, {
    cause,
    details: { dataDir, ...host },
  });
}

async function readInfo(dataDir: string): Promise<HostInfo | undefined> {
  try {
    const text = await readFile(join(dataDir, INFO_FILE), "utf8");
    return hostInfoSchema.safeParse(JSON.parse(text)).data;
  } catch {
    // The lock is what counts; who has it is only told better with this file.
    return undefined;
  }
}

async function writeInfo(dataDir: string, info: HostInfo): Promise<void> {
  await replaceFile(join(dataDir, INFO_FILE), `${JSON.stringify(hostInfoSchema.parse(info))}\n`);
}
