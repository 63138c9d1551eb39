import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Retention } from "./diagnostics-records.ts";
import { hashesIn } from "./journal-reader.ts";
import type { StorePort } from "./port.ts";

/** What {@link removeBodies} has deleted. */
export interface RemovedBodies {
  readonly bodies: number;
  readonly bytes: number;
}

interface Body {
  readonly path: string;
  readonly hash: string;
  readonly bytes: number;
  readonly changedMs: number;
  readonly isResult: boolean;
}

const MIB = 2 ** 20;
const DAY_MS = 86_400_000;
const HEX = /^(?<hex>[0-9a-f]{64})(?:\.json)?$/u;

/**
 * Deletes large results and adopted files by age, then the oldest until what is left fits; the journal
 * says so first. Their rows and hashes stay. Whatever unfinished work names is kept, and so is what a
 * run that ended within `maxAgeDays` names, however old its content is.
 *
 * The caller must be the host of the data directory, or hold its lock.
 */
export async function removeBodies(
  dataDir: string,
  store: Pick<StorePort, "namedHashes" | "stage">,
  keep: Retention,
): Promise<RemovedBodies> {
  const doomed = await chooseBodies(dataDir, store, keep);
  const removed = {
    bodies: doomed.length,
    bytes: doomed.reduce((sum, { bytes }) => sum + bytes, 0),
  };
  if (doomed.length === 0) return removed;
  await store.stage([
    { op: "journal.append", event: { eventType: "bodies_removed", payload: removed } },
  ]);
  for (const { path } of doomed) await rm(path, { recursive: true, force: true });
  return removed;
}

async function chooseBodies(
  dataDir: string,
  store: Pick<StorePort, "namedHashes">,
  { maxAgeDays, maxTotalMb }: Retention,
): Promise<readonly Body[]> {
  if (maxAgeDays === undefined && maxTotalMb === undefined) return [];
  const cutoffMs = maxAgeDays === undefined ? -Infinity : Date.now() - maxAgeDays * DAY_MS;
  const bodies = await listBodies(dataDir);
  const named = new Set(
    await store.namedHashes(maxAgeDays === undefined ? null : new Date(cutoffMs)),
  );
  // A result that is needed may name files.
  for (const { path, hash } of bodies.filter((body) => body.isResult && named.has(body.hash))) {
    for (const inner of hashesIn(await readFile(path, "latin1"))) named.add(inner);
    named.add(hash);
  }
  let totalBytes = bodies.reduce((sum, { bytes }) => sum + bytes, 0);
  return bodies.filter(({ hash, bytes, changedMs }) => {
    const isTooMuch = maxTotalMb !== undefined && totalBytes > maxTotalMb * MIB;
    const isDoomed = !named.has(hash) && (changedMs < cutoffMs || isTooMuch);
    if (isDoomed) totalBytes -= bytes;
    return isDoomed;
  });
}

/** Every large result and every adopted file or folder, the oldest first. */
async function listBodies(dataDir: string): Promise<readonly Body[]> {
  const bodies: Body[] = [];
  for (const kind of ["results", "files"]) {
    const root = join(dataDir, kind);
    for (const prefix of await namesIn(root)) {
      bodies.push(...(await bodiesIn(join(root, prefix), kind === "results")));
    }
  }
  return bodies.sort((a, b) => a.changedMs - b.changedMs);
}

async function bodiesIn(folder: string, isResult: boolean): Promise<readonly Body[]> {
  const bodies: Body[] = [];
  for (const name of await namesIn(folder)) {
    const hex = HEX.exec(name)?.groups?.["hex"];
    if (hex === undefined) continue;
    const path = join(folder, name);
    const { mtimeMs: changedMs } = await stat(path);
    bodies.push({ path, hash: `sha256:${hex}`, bytes: await bytesOf(path), changedMs, isResult });
  }
  return bodies;
}

async function bytesOf(path: string): Promise<number> {
  const found = await stat(path);
  if (!found.isDirectory()) return found.size;
  let sum = 0;
  for (const name of await namesIn(path)) sum += await bytesOf(join(path, name));
  return sum;
}

async function namesIn(folder: string): Promise<readonly string[]> {
  return await readdir(folder).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  });
}
