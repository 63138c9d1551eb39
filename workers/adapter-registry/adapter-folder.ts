import { open, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { dirRef, dirRefSchema, type DirRef, z } from "cjm-substrate/worker";
import { AdapterInvalidError } from "./faults.ts";

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";
/** Bytes before the header of a safetensors file: its length. */
const LENGTH_BYTES = 8;

/** A folder as callers name it. */
export const folderSchema = z.union([dirRefSchema, z.string().min(1)]).meta({ format: "cjm-dir" });
export type FolderInput = z.output<typeof folderSchema>;

const configSchema = z.looseObject({
  r: z.int().positive(),
  base_model_name_or_path: z.string().nullish(),
});

/** A LoRA adapter that can be stored. */
export interface AdapterFolder {
  readonly source: DirRef;
  readonly rank: number;
  readonly baseModelId: string | undefined;
  readonly bytes: number;
}

/**
 * Reads what a folder says of itself. A reference's hash is believed here, and held to when the files
 * have been copied.
 *
 * @throws {AdapterInvalidError} for a folder that peft could not load as a LoRA adapter.
 */
export async function openAdapterFolder(input: FolderInput): Promise<AdapterFolder> {
  const source = typeof input === "string" ? await dirRef(input) : input;
  const { path, files } = source.data;
  requireSafeNames(source);
  for (const name of [CONFIG, WEIGHTS]) {
    if (!files.some((file) => file.name === name)) throw invalid(path, `has no ${name}`);
  }
  const config = configSchema.safeParse(await readJson(join(path, CONFIG)));
  if (!config.success) {
    const [issue] = config.error.issues;
    throw invalid(path, `${CONFIG}: ${issue?.path.join(".")}: ${issue?.message}`);
  }
  await requireHeader(join(path, WEIGHTS));
  return {
    source,
    rank: config.data.r,
    baseModelId: config.data.base_model_name_or_path ?? undefined,
    bytes: files.reduce((sum, { size }) => sum + size, 0),
  };
}

/** A reference comes from outside, and its names become paths. */
export function requireSafeNames({ data: { path, files } }: DirRef): void {
  for (const { name } of files) {
    const segments = name.split("/");
    const isUnsafe = segments.some((segment) => ["", ".", ".."].includes(segment));
    if (isUnsafe || name.includes("\0")) throw invalid(path, `has a file with the name "${name}"`);
  }
}

async function readJson(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8");
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw invalid(path, "is not JSON", cause);
  }
}

/** A file that was cut short is found here, and not by whoever loads it one day. */
async function requireHeader(path: string): Promise<void> {
  await using file = await open(path, "r");
  const { size } = await file.stat();
  const prefix = Buffer.alloc(LENGTH_BYTES);
  await file.read(prefix, 0, LENGTH_BYTES, 0);
  const length = Number(prefix.readBigUInt64LE());
  if (size < LENGTH_BYTES || length > size - LENGTH_BYTES) {
    throw invalid(path, `is cut short: ${size} bytes`);
  }
}

function invalid(path: string, what: string, cause?: unknown): AdapterInvalidError {
  const reason = cause instanceof Error ? ` (${cause.message})` : "";
  return new AdapterInvalidError(`${path} ${what}${reason}`, { path, name: basename(path) });
}
