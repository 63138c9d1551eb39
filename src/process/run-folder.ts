import { realpathSync } from "node:fs";
import { lstat, mkdir, readdir, rm, utimes } from "node:fs/promises";
import { createConnection } from "node:net";
import { dirname, join, resolve } from "node:path";
import { CjmError } from "../errors/index.ts";
import { sha256 } from "../util/canonical-json.ts";

/** Longest Unix socket path in bytes; the kernel's field has 108 with its terminator, macOS has 104. */
const SOCKET_PATH_MAX_BYTES = 103;

/** What tells one data directory's host and workers from another's: 16 hex characters. */
export function dataDirIdentity(dataDir: string): string {
  return sha256(realPath(resolve(dataDir))).slice("sha256:".length, "sha256:".length + 16);
}

/** One folder has one identity, whatever links lead to it: its lock is one too. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** Where the sockets of a data directory's host live; the folder may not exist yet. */
export function runFolderPath(dataDir: string, env: NodeJS.ProcessEnv = process.env): string {
  const id = dataDirIdentity(dataDir).slice(0, 8);
  const runtime = env["XDG_RUNTIME_DIR"];
  return runtime !== undefined && runtime !== ""
    ? join(runtime, `cjm-${id}`)
    : join("/tmp", `cjm-${process.getuid?.() ?? 0}-${id}`);
}

/** Socket of a live host in its run folder. */
export const HOST_SOCKET = "host.sock";

/** What hosts that were killed left behind is looked at this late: no host takes so long to start. */
const STALE_MS = 10 * 60_000;
/** Folders that one host removes; another takes the rest. */
const SWEEP_MAX = 64;
const RUN_FOLDER = /^cjm-(?:\d+-)?[0-9a-f]{8}$/u;

/**
 * Makes the run folder, 0700 and ours, and empties it of sockets an earlier host left.
 * Call it only while holding the host lock.
 *
 * @throws {CjmError} `FILE_INVALID` if the path is a link, a file, or someone else's.
 */
export async function prepareRunFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (!(await isPrivate(folder))) {
    throw new CjmError(
      "FILE_INVALID",
      `${folder} must be a folder of this user with mode 0700; remove it and start again`,
    );
  }
  // In use from now on, for whoever looks for stale ones.
  await utimes(folder, new Date(), new Date());
  for (const name of await readdir(folder)) {
    await rm(join(folder, name), { recursive: true, force: true });
  }
}

/**
 * Removes run folders beside this one that hosts left which were killed: this user's, unchanged for
 * ten minutes, and without a host that answers.
 *
 * @returns the folders that were removed.
 */
export async function sweepRunFolders(own: string): Promise<readonly string[]> {
  const parent = dirname(own);
  const names = await readdir(parent).catch(() => []);
  const others = names.filter((name) => RUN_FOLDER.test(name)).map((name) => join(parent, name));
  const removed: string[] = [];
  for (const folder of others) {
    if (removed.length === SWEEP_MAX) break;
    if (folder === own || !(await isStale(folder))) continue;
    await rm(folder, { recursive: true, force: true });
    removed.push(folder);
  }
  return removed;
}

async function isStale(folder: string): Promise<boolean> {
  try {
    const { mtimeMs } = await lstat(folder);
    if (Date.now() - mtimeMs < STALE_MS || !(await isPrivate(folder))) return false;
    return !(await answers(join(folder, HOST_SOCKET)));
  } catch {
    // Gone meanwhile, or not for us to see.
    return false;
  }
}

async function isPrivate(folder: string): Promise<boolean> {
  const stat = await lstat(folder);
  const isOurs = stat.isDirectory() && stat.uid === (process.getuid?.() ?? stat.uid);
  return isOurs && (stat.mode & 0o077) === 0;
}

/** False only where nobody can be listening; in any doubt somebody is. */
async function answers(socket: string): Promise<boolean> {
  const { promise, resolve: settle } = Promise.withResolvers<boolean>();
  const connection = createConnection(socket);
  connection.once("connect", () => {
    settle(true);
  });
  connection.once("error", (error: NodeJS.ErrnoException) => {
    settle(error.code !== "ECONNREFUSED" && error.code !== "ENOENT");
  });
  try {
    return await promise;
  } finally {
    connection.destroy();
  }
}

/** Takes the run folder away with all that is in it. Call it only while holding the host lock. */
export async function removeRunFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
}

/** @throws {CjmError} `FILE_INVALID` naming the path if it is too long for a Unix socket. */
export function socketPath(folder: string, name: string): string {
  const path = join(folder, name);
  const bytes = Buffer.byteLength(path);
  if (bytes > SOCKET_PATH_MAX_BYTES) {
    throw new CjmError(
      "FILE_INVALID",
      `Socket path ${path} has ${bytes} bytes; the limit is ${SOCKET_PATH_MAX_BYTES}. Set XDG_RUNTIME_DIR to a shorter folder`,
    );
  }
  return path;
}
