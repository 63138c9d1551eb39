import { mkdir, readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { hashCanonical, sha256 } from "../util/canonical-json.ts";
import { hashInput } from "./input-hash.ts";

/** What a capability keeps for one input of one action. */
export interface CacheSubject {
  /** The capability's own folder: `call.dataFolder`. */
  readonly dataFolder: string;
  readonly inputPath: string;
  readonly action: string;
}

export interface CacheFolderOptions {
  /** Makes the folder. @default true */
  readonly create?: boolean;
  /** False for an input that is no file (a URL, a row id): its text is hashed. @default true */
  readonly hashInputContent?: boolean;
  /** Reads the file even where its hash is remembered. @default false */
  readonly skipInputCache?: boolean;
  /** @default 6 */
  readonly inputHashLength?: number;
  /** @default 12 */
  readonly configHashLength?: number;
}

const ACTION_PATTERN = /^(?!\.{1,2}$)[\w.-]+$/u;
const MAX_STEM_LENGTH = 100;
// oxlint-disable-next-line eslint/no-control-regex -- control characters are among what no file system takes
const UNSAFE_CHARACTERS = /[<>:"/\\|?*\u0000-\u001f]/gu;
const LEADING_OR_TRAILING = /^[. ]+|[. ]+$/gu;

/**
 * The folder for what one action makes of one input under one config:
 * `<dataFolder>/<action>/<stem>/<input hash>_<config hash>`.
 *
 * Another content or another config is another folder, so nothing stale is ever found there. The
 * Python SDK computes the same one.
 */
export async function cacheDirForConfig(
  subject: CacheSubject,
  config: Readonly<Record<string, unknown>>,
  options: CacheFolderOptions = {},
): Promise<string> {
  const inputHash =
    (options.hashInputContent ?? true)
      ? await hashInput(subject.inputPath, { skipCache: options.skipInputCache ?? false })
      : sha256(subject.inputPath);
  const input = hexOf(inputHash).slice(0, options.inputHashLength ?? 6);
  const configured = hexOf(hashCanonical(config)).slice(0, options.configHashLength ?? 12);
  const folder = join(parentOf(subject), `${input}_${configured}`);
  if (options.create ?? true) await mkdir(folder, { recursive: true });
  return folder;
}

/** Every cache folder of one input and action, sorted; none where there never was one. */
export async function listCacheEntries(subject: CacheSubject): Promise<string[]> {
  const parent = parentOf(subject);
  const entries = await readdir(parent, { withFileTypes: true }).catch(noneIfMissing);
  return entries
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(parent, entry.name))
    .sort();
}

/**
 * Deletes the cache folders of one input and action but those to keep; returns the deleted ones.
 *
 * With `dryRun` it deletes nothing and returns what it would have.
 */
export async function pruneCacheForInput(
  subject: CacheSubject,
  {
    keep = [],
    dryRun = false,
  }: { readonly keep?: readonly string[]; readonly dryRun?: boolean } = {},
): Promise<string[]> {
  const kept = new Set(keep.map((path) => basename(path)));
  const entries = await listCacheEntries(subject);
  const doomed = entries.filter((path) => !kept.has(basename(path)));
  if (!dryRun) for (const path of doomed) await rm(path, { recursive: true, force: true });
  return doomed;
}

function parentOf({ dataFolder, inputPath, action }: CacheSubject): string {
  if (!ACTION_PATTERN.test(action)) throw new TypeError(`"${action}" is no name of a folder`);
  return join(dataFolder, action, sanitizedStem(inputPath));
}

/** The file name without its last extension, as every file system takes it. */
function sanitizedStem(inputPath: string): string {
  const parts = inputPath.split("/").filter((part) => part !== "" && part !== ".");
  const name = parts.at(-1) ?? "";
  const dot = name.lastIndexOf(".");
  const stem = dot > 0 && dot < name.length - 1 ? name.slice(0, dot) : name;
  const safe = stem.replace(UNSAFE_CHARACTERS, "_").replace(LEADING_OR_TRAILING, "");
  // By code points, as Python counts.
  return Array.from(safe).slice(0, MAX_STEM_LENGTH).join("") || "_";
}

function hexOf(hash: string): string {
  return hash.replace(/^sha256:/u, "");
}

function noneIfMissing(error: unknown): [] {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
  throw error;
}
