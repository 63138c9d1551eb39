import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  type Stats,
} from "node:fs";
import { CjmError } from "cjm-substrate/worker";

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_WRONLY, O_CREAT, O_TRUNC } = constants;

/**
 * The segments of a name that stays below the folder it is used in.
 *
 * @throws {CjmError} `CAPABILITY_INPUT` for absolute names and for `..`.
 */
export function safeSegments(name: string): string[] {
  const segments = name.split("/").filter((segment) => segment !== "" && segment !== ".");
  const isUnsafe = name.startsWith("/") || name.includes("\0") || segments.includes("..");
  if (isUnsafe || segments.length === 0 || segments.some((segment) => segment.length > 255)) {
    throw new CjmError("CAPABILITY_INPUT", `"${name}" is not a relative name below the folder`);
  }
  return segments;
}

/**
 * Opens a file below `root` without following a symbolic link at any step.
 *
 * Each step is opened relative to the descriptor of the one before (what openat does), so a guest
 * that swaps a folder for a link in between changes nothing. The caller closes the descriptor.
 *
 * @returns undefined with a reason where the name is not a regular file.
 */
export function openBeneath(
  root: string,
  name: string,
): { fd: number; stats: Stats } | { fd: null; reason: string } {
  const segments = safeSegments(name);
  const last = segments.pop() ?? "";
  let folder = openSync(root, O_RDONLY | O_DIRECTORY);
  try {
    for (const segment of segments) folder = descend(folder, segment);
    return openRegular(`/proc/self/fd/${folder}/${last}`);
  } catch (error) {
    return { fd: null, reason: reasonOf(error) };
  } finally {
    closeSync(folder);
  }
}

/** Creates or replaces a file below `root`, and the folders on its way; follows no link. */
export function createBeneath(
  root: string,
  name: string,
  ownFolder: (path: string) => void,
): number {
  const segments = safeSegments(name);
  const last = segments.pop() ?? "";
  let folder = openSync(root, O_RDONLY | O_DIRECTORY);
  try {
    for (const segment of segments) {
      const path = `/proc/self/fd/${folder}/${segment}`;
      if (makeFolder(path)) ownFolder(path);
      folder = descend(folder, segment);
    }
    const flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK;
    return openSync(`/proc/self/fd/${folder}/${last}`, flags, 0o644);
  } finally {
    closeSync(folder);
  }
}

/** Opens a folder in a folder and closes the outer one. */
function descend(folder: number, segment: string): number {
  const next = openSync(`/proc/self/fd/${folder}/${segment}`, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  closeSync(folder);
  return next;
}

function makeFolder(path: string): boolean {
  try {
    mkdirSync(path, 0o755);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

/** Looks before it opens, because opening a device can act; O_NONBLOCK because a FIFO would wait. */
function openRegular(path: string): { fd: number; stats: Stats } | { fd: null; reason: string } {
  const kind = kindOf(lstatSync(path));
  if (kind !== "file") return { fd: null, reason: `it is a ${kind}` };
  const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  const stats = fstatSync(fd);
  if (stats.isFile()) return { fd, stats };
  closeSync(fd);
  return { fd: null, reason: `it is a ${kindOf(stats)}` };
}

function kindOf(stats: Stats): string {
  if (stats.isFile()) return "file";
  if (stats.isSymbolicLink()) return "symbolic link";
  if (stats.isDirectory()) return "folder";
  if (stats.isFIFO()) return "FIFO";
  if (stats.isSocket()) return "socket";
  return "device";
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
  if (code === "ENOENT") return "there is no such file";
  if (code === "ENOTDIR" || code === "ELOOP") return "a folder on its way is a link or a file";
  return code;
}
