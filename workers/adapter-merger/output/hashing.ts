import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { MergeFault } from "../fault.ts";

const CHUNK_BYTES = 1 << 20;

/** `sha256:<hex>` of a file, read in pieces; stops between two of them when `signal` aborts. */
export async function hashFile(path: string, signal: AbortSignal): Promise<string> {
  await using file = await open(path, "r");
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for (;;) {
    if (signal.aborted) throw new MergeFault("CAPABILITY_CANCELLED", "cancelled", "Cancelled");
    const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, null);
    if (bytesRead === 0) return `sha256:${hash.digest("hex")}`;
    hash.update(buffer.subarray(0, bytesRead));
  }
}

/** `sha256:<hex>` of a value's JSON with sorted keys. */
export function hashValue(value: unknown): string {
  return `sha256:${createHash("sha256").update(stableJson(value)).digest("hex")}`;
}

/** JSON with sorted keys; members that are undefined are left out. */
export function stableJson(value: unknown, indent?: number): string {
  const sortKeys = (_: string, member: unknown): unknown => {
    if (typeof member !== "object" || member === null || Array.isArray(member)) return member;
    return Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)));
  };
  return JSON.stringify(value, sortKeys, indent);
}
