import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { z } from "cjm-substrate/worker";
import type { ResolvedAdapter } from "../engine.ts";

const MAX_HEADER = 16 * 1024 * 1024;
const PIECE = 1024 * 1024;
const headerSchema = z.record(z.string(), z.unknown());
const tensorSchema = z.object({ data_offsets: z.tuple([z.int(), z.int()]) });

/**
 * Whether a PEFT adapter is without effect by its content: every number of its `lora_B` is zero, as
 * in one that was never trained. Undefined where that cannot be told.
 */
export async function changesNothing(
  adapter: ResolvedAdapter,
  signal: AbortSignal,
): Promise<boolean | undefined> {
  if (adapter.format !== "peft") return undefined;
  const file = await open(join(adapter.path, "adapter_model.safetensors")).catch(() => undefined);
  if (file === undefined) return undefined;
  await using _ = file;
  const tensors = await readTensors(file);
  if (tensors === undefined) return undefined;
  for (const [from, to] of tensors) {
    signal.throwIfAborted();
    if (!(await isZero(file, from, to))) return false;
  }
  return true;
}

/** Byte ranges of every `lora_B` in a safetensors file; undefined if it is none. */
async function readTensors(file: FileHandle): Promise<[number, number][] | undefined> {
  const prefix = Buffer.alloc(8);
  await file.read(prefix, 0, 8, 0);
  const length = Number(prefix.readBigUInt64LE(0));
  if (length === 0 || length > MAX_HEADER) return undefined;
  const text = Buffer.alloc(length);
  await file.read(text, 0, length, 8);
  const header = headerSchema.safeParse(parse(text.toString("utf8")));
  if (!header.success) return undefined;
  const ranges: [number, number][] = [];
  for (const [name, entry] of Object.entries(header.data)) {
    const tensor = tensorSchema.safeParse(entry);
    if (!name.includes("lora_B") || !tensor.success) continue;
    const [from, to] = tensor.data.data_offsets;
    ranges.push([8 + length + from, 8 + length + to]);
  }
  return ranges;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function isZero(file: FileHandle, from: number, to: number): Promise<boolean> {
  const piece = Buffer.alloc(Math.min(PIECE, Math.max(0, to - from)));
  for (let at = from; at < to; at += piece.length) {
    const { bytesRead } = await file.read(piece, 0, Math.min(piece.length, to - at), at);
    if (bytesRead === 0) return true;
    // A sign bit alone is minus zero, in every float format, little-endian.
    if (piece.subarray(0, bytesRead).some((byte) => (byte & 0x7f) !== 0)) return false;
  }
  return true;
}
