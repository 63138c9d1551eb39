import { createHash } from "node:crypto";

/**
 * JSON with sorted keys and no white space: equal values give equal text.
 *
 * Members that are `undefined` are left out, as `JSON.stringify` does. Numbers are printed by
 * JavaScript's rules, so a hash of this text is compared only with hashes made by this function.
 *
 * @throws {TypeError} for values JSON has no form for (functions, symbols, bigint, NaN, infinity).
 */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === "boolean" || typeof value === "string") {
    return JSON.stringify(value);
  }
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new TypeError(`${value} has no JSON form`);
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value === "object") {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
    return `{${members.join(",")}}`;
  }
  throw new TypeError(`A ${typeof value} has no JSON form`);
}

/** `sha256:<hex>` of bytes or UTF-8 text. */
export function sha256(content: string | Uint8Array): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}

/** `sha256:<hex>` of the canonical JSON of a value. */
export function hashCanonical(value: unknown): string {
  return sha256(canonicalJson(value));
}
