import { lstatSync, readdirSync, readFileSync, statSync, type Dirent } from "node:fs";
import { mkdir, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { replaceFile } from "../util/replace-file.ts";
import { randomHex } from "../util/ids.ts";

const COMPLETE = "complete";
const KEY_LENGTH = 16;

const completeSchema = z.object({
  key: z.string(),
  /** Every file and link of the environment, relative to it. */
  files: z.array(z.string()),
});

/** `<data_dir>/envs/<name>`: every environment ever built for one capability and not yet removed. */
export function environmentsOf(dataDir: string, name: string): string {
  return join(dataDir, "envs", name);
}

/** An environment of this key that is complete and has lost no file; the one in service first. */
export async function findComplete(
  home: string,
  key: string,
  inService: string | undefined,
): Promise<string | undefined> {
  if (inService !== undefined && isIntact(inService, key)) return inService;
  const candidates = (await namesIn(home)).filter((name) => name.startsWith(shortKey(key)));
  return candidates.map((name) => join(home, name)).find((folder) => isIntact(folder, key));
}

/** A new empty folder for an environment of this key; one of the same key may be serving beside it. */
export async function newFolder(home: string, key: string): Promise<string> {
  await mkdir(home, { recursive: true });
  const taken = new Set(await namesIn(home));
  const short = shortKey(key);
  const folder = join(home, taken.has(short) ? `${short}-${randomHex(3)}` : short);
  await mkdir(folder);
  return folder;
}

/** Marks an environment complete, with the list of its files. */
export async function markComplete(folder: string, key: string): Promise<void> {
  const content = JSON.stringify({ key, files: filesOf(folder) });
  await replaceFile(join(folder, COMPLETE), content, 0o644);
}

/** False for an environment that was never finished, is of another key, or has lost a file. */
export function isIntact(folder: string, key: string): boolean {
  const marker = readMarker(join(folder, COMPLETE));
  if (marker?.key !== key) return false;
  const present = new Set(filesOf(folder));
  return marker.files.every((file) => present.has(file) && !isDangling(join(folder, file)));
}

function readMarker(path: string): z.output<typeof completeSchema> | undefined {
  try {
    const parsed = completeSchema.safeParse(JSON.parse(readFileSync(path, "utf8")));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

/** Only interpreters and linked packages are links; their targets lie outside and may go. */
function isDangling(path: string): boolean {
  if (!/(?:^|\/)(?:bin|node_modules)\/[^/]+$/u.test(path)) return false;
  try {
    if (lstatSync(path).isSymbolicLink()) statSync(path);
    return false;
  } catch {
    return true;
  }
}

/** Synchronous: tens of thousands of names are read several times faster than through promises. */
function filesOf(folder: string): string[] {
  const files: string[] = [];
  const pending = [""];
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    const prefix = at === "" ? "" : `${at}/`;
    const items = readdirSync(join(folder, at), { withFileTypes: true });
    const isFolder = (item: Dirent): boolean => item.isDirectory();
    pending.push(
      ...items
        .filter(isFolder)
        .flatMap(({ name }) => (name === "__pycache__" ? [] : [prefix + name])),
    );
    files.push(...items.filter((item) => !isFolder(item)).map(({ name }) => prefix + name));
  }
  return files.filter((name) => !isPassing(name)).sort();
}

/** Files that come and go without the environment being another one. */
function isPassing(name: string): boolean {
  return name.endsWith(".pyc") || name === COMPLETE || name.startsWith(`.${COMPLETE}.`);
}

/** Removes environments that `keep` does not name; a folder in use stays until a later call. */
export async function removeOthers(
  home: string,
  keep: (folder: string) => boolean | Promise<boolean>,
): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await namesIn(home)) {
    const folder = join(home, name);
    if (await keep(folder)) continue;
    // First the marker: a removal that is cut short leaves an environment nobody takes for whole.
    await rm(join(folder, COMPLETE), { force: true });
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
    removed.push(folder);
  }
  return removed;
}

/** True for a folder that holds a marker, whatever its key. */
export async function isMarked(folder: string): Promise<boolean> {
  try {
    await (await open(join(folder, COMPLETE))).close();
    return true;
  } catch {
    return false;
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch {
    return [];
  }
}

function shortKey(key: string): string {
  return key.replace(/^sha256:/u, "").slice(0, KEY_LENGTH);
}
