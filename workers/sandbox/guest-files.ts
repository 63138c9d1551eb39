import { createHash } from "node:crypto";
import {
  closeSync,
  fchownSync,
  lchownSync,
  mkdirSync,
  openSync,
  readSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { CjmError, type FileRef } from "cjm-substrate/worker";
import { createBeneath, openBeneath, safeSegments } from "./beneath.ts";
import { NOBODY, type Identity } from "./policy.ts";
import type { FileContent } from "./schemas.ts";

const CHUNK_BYTES = 1_048_576;

/** A file to put into the working folder. */
export interface StagedFile {
  readonly name: string;
  readonly content: FileContent | Uint8Array;
}

/**
 * Writes input files into a jail that waits at its gate.
 *
 * @throws {CjmError} `CAPABILITY_INPUT` for a bad name or a reference whose content has another
 * hash, `RESOURCE_LIMIT_EXCEEDED` when they do not fit into the jail's disk.
 */
export function stageFiles(folder: string, files: readonly StagedFile[], identity: Identity): void {
  for (const file of files) {
    try {
      stageFile(folder, file, identity);
    } catch (error) {
      throw stagingError(file.name, error);
    }
  }
}

/** Under setuid we are root here, and the guest must own what it gets. */
function stageFile(folder: string, { name, content }: StagedFile, identity: Identity): void {
  const own = (path: string): void => {
    if (identity === "setuid") lchownSync(path, NOBODY, NOBODY);
  };
  const fd = createBeneath(folder, name, own);
  try {
    if (identity === "setuid") fchownSync(fd, NOBODY, NOBODY);
    writeContent(fd, name, content);
  } finally {
    closeSync(fd);
  }
}

function writeContent(target: number, name: string, content: FileContent | Uint8Array): void {
  if (typeof content === "string") return writeAll(target, Buffer.from(content));
  if (content instanceof Uint8Array) return writeAll(target, content);
  if ("base64" in content) return writeAll(target, Buffer.from(content.base64, "base64"));
  const source = "data" in content ? content.data.path : content.path;
  const hash = copyFrom(source, target);
  if ("data" in content && hash !== content.data.sha256) {
    const message = `File "${name}": ${source} has ${hash}, the reference says ${content.data.sha256}`;
    throw new CjmError("CAPABILITY_INPUT", message, { fieldsInvalid: [`files.${name}`] });
  }
}

function copyFrom(path: string, target: number): string {
  const source = openSync(path, "r");
  try {
    return copyBytes(source, target, Number.POSITIVE_INFINITY).sha256;
  } finally {
    closeSync(source);
  }
}

/** Copies at most `limit` bytes from one descriptor to another. */
function copyBytes(
  source: number,
  target: number,
  limit: number,
): { size: number; sha256: string } {
  const hash = createHash("sha256");
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  let size = 0;
  while (size < limit) {
    const count = readSync(source, chunk, 0, Math.min(chunk.length, limit - size), null);
    if (count === 0) break;
    const bytes = chunk.subarray(0, count);
    hash.update(bytes);
    writeAll(target, bytes);
    size += count;
  }
  return { size, sha256: `sha256:${hash.digest("hex")}` };
}

function writeAll(fd: number, bytes: Uint8Array): void {
  let offset = 0;
  while (offset < bytes.length) offset += writeSync(fd, bytes, offset);
}

function stagingError(name: string, error: unknown): unknown {
  if (error instanceof CjmError || !(error instanceof Error) || !("code" in error)) return error;
  if (error.code === "ENOSPC") {
    const message = `File "${name}" does not fit: the jail's disk is full (limit disk_mb)`;
    return new CjmError("RESOURCE_LIMIT_EXCEEDED", message, { cause: error });
  }
  return new CjmError("CAPABILITY_INPUT", `File "${name}": ${error.message}`, {
    cause: error,
    fieldsInvalid: [`files.${name}`],
  });
}

/** What came out of a working folder. */
export interface CollectedFiles {
  readonly files: Record<string, FileRef>;
  /** Names that were asked for and not returned, with the reason. */
  readonly refused: Record<string, string>;
}

/** Copies named regular files out of a jail whose guest has ended; nothing else is followed or opened. */
export function collectFiles(
  folder: string,
  names: readonly string[],
  { outputFolder, maxBytes }: { outputFolder: string; maxBytes: number },
): CollectedFiles {
  const files: Record<string, FileRef> = {};
  const refused: Record<string, string> = {};
  for (const name of names) {
    const opened = openBeneath(folder, name);
    if (opened.fd === null) {
      refused[name] = opened.reason;
      continue;
    }
    try {
      if (opened.stats.size > maxBytes) refused[name] = `it is larger than ${maxBytes} bytes`;
      else files[name] = copyOut(opened.fd, join(outputFolder, ...safeSegments(name)), maxBytes);
    } finally {
      closeSync(opened.fd);
    }
  }
  return { files, refused };
}

function copyOut(source: number, path: string, maxBytes: number): FileRef {
  mkdirSync(dirname(path), { recursive: true });
  const target = openSync(path, "w", 0o644);
  try {
    return { __wire__: "file.ref", data: { path, ...copyBytes(source, target, maxBytes) } };
  } finally {
    closeSync(target);
  }
}
