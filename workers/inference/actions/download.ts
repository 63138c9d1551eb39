import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CjmError, z } from "cjm-substrate/worker";
import { errnoOf, refuse, worded } from "../fault.ts";

const stateSchema = z.object({ url: z.string(), etag: z.string() });

export interface DownloadRequest {
  readonly url: string;
  readonly sha256: string;
  readonly name?: string | undefined;
}

export interface DownloadCall {
  readonly signal: AbortSignal;
  readonly progress: (fraction: number, message?: string) => void;
}

export interface Downloaded {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly resumed_from: number;
  readonly was_there: boolean;
}

/**
 * Fetches a file into a folder; what an interrupted attempt has fetched is kept and continued, where
 * the server still has the same file (`ETag`).
 *
 * @throws {CjmError} `download_failed` (transient where trying again may help), `download_hash`
 */
export async function download(
  folder: string,
  request: DownloadRequest,
  call: DownloadCall,
): Promise<Downloaded> {
  const path = join(folder, request.name ?? nameOf(request.url));
  await mkdir(dirname(path), { recursive: true });
  const there = await hashIfThere(path, call);
  if (there?.sha256 === request.sha256) {
    return { path, ...there, resumed_from: 0, was_there: true };
  }
  if (there !== undefined) {
    throw refuse("download_failed", `${path} is there with other content: ${there.sha256}`);
  }
  const partial = `${path}.partial`;
  const resumed = await fetchInto(partial, request.url, call);
  const found = await hashIfThere(partial, call);
  if (found?.sha256 !== request.sha256) {
    await rm(partial, { force: true });
    await rm(`${partial}.json`, { force: true });
    throw refuse("download_hash", `${request.url} is ${found?.sha256}, not ${request.sha256}`);
  }
  await rename(partial, path);
  await rm(`${partial}.json`, { force: true });
  return { path, ...found, resumed_from: resumed, was_there: false };
}

function nameOf(url: string): string {
  const name = basename(decodeURIComponent(new URL(url).pathname));
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/u.test(name)) return name;
  throw refuse("download_failed", `${url} names no file: give a name`, { fields: ["name"] });
}

async function fetchInto(partial: string, url: string, call: DownloadCall): Promise<number> {
  const state = await readState(`${partial}.json`, url);
  const from = state === undefined ? 0 : await sizeOf(partial);
  const headers: Record<string, string> =
    from > 0 && state !== undefined ? { range: `bytes=${from}-`, "if-range": state.etag } : {};
  const response = await request(url, headers, call.signal);
  // The end of a complete file lies at no range.
  if (response.status === 416) return from;
  if (!response.ok) throw refusedBy(url, response.status);
  const isContinued = response.status === 206;
  const etag = response.headers.get("etag");
  // A weak or missing mark cannot tell whether two halves belong together.
  if (etag === null || etag.startsWith("W/")) await rm(`${partial}.json`, { force: true });
  else await writeFile(`${partial}.json`, JSON.stringify({ url, etag }));
  const start = isContinued ? from : 0;
  const length = Number(response.headers.get("content-length") ?? Number.NaN);
  await append({ partial, url, start, total: start + length }, response, call);
  return start;
}

async function append(
  target: {
    readonly partial: string;
    readonly url: string;
    readonly start: number;
    readonly total: number;
  },
  response: Response,
  { signal, progress }: DownloadCall,
): Promise<void> {
  const { partial, url, start, total } = target;
  await using file = await open(partial, start > 0 ? "r+" : "w");
  let at = start;
  try {
    const chunks: AsyncIterable<Uint8Array> | null = response.body;
    if (chunks === null) return;
    for await (const chunk of chunks) {
      signal.throwIfAborted();
      await file.write(chunk, 0, chunk.byteLength, at);
      at += chunk.byteLength;
      progress(Number.isNaN(total) ? -1 : at / total, `${Math.round(at / 1e6)} MB of ${url}`);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw failed(url, error);
  } finally {
    await file.truncate(at);
    await file.sync();
  }
}

async function request(
  url: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Response> {
  try {
    return await fetch(url, { headers, signal });
  } catch (error) {
    signal.throwIfAborted();
    throw failed(url, error);
  }
}

function failed(url: string, error: unknown): CjmError {
  if (errnoOf(error) === "ENOSPC") {
    return new CjmError("CAPABILITY_RESOURCE", `The disk is full: ${url}`, { cause: error });
  }
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  const why = errnoOf(cause) || (cause instanceof Error ? cause.message : String(cause));
  const message = `${url} cannot be fetched (${why}): is there a network? A model file can also be put into the models folder by hand`;
  return new CjmError("CAPABILITY_TRANSIENT", worded(message, "download_failed"), {
    cause: error,
    details: { reason: "download_failed", url },
  });
}

function refusedBy(url: string, status: number): CjmError {
  const message = worded(`${url} answers ${status}`, "download_failed");
  const details = { reason: "download_failed", url, status };
  const isPassing = status === 408 || status === 429 || status >= 500;
  return new CjmError(isPassing ? "CAPABILITY_TRANSIENT" : "CAPABILITY_INPUT", message, {
    details,
  });
}

async function readState(
  path: string,
  url: string,
): Promise<z.output<typeof stateSchema> | undefined> {
  try {
    const state = stateSchema.parse(JSON.parse(await readFile(path, "utf8")));
    return state.url === url ? state : undefined;
  } catch {
    // Nothing to continue.
    return undefined;
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
}

async function hashIfThere(
  path: string,
  { signal }: DownloadCall,
): Promise<{ readonly sha256: string; readonly bytes: number } | undefined> {
  const hash = createHash("sha256");
  let bytes = 0;
  try {
    for await (const chunk of createReadStream(path, { signal, highWaterMark: 1024 * 1024 })) {
      if (!Buffer.isBuffer(chunk)) continue;
      hash.update(chunk);
      bytes += chunk.byteLength;
    }
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  return { sha256: `sha256:${hash.digest("hex")}`, bytes };
}
