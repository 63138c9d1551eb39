import { randomBytes, randomUUID } from "node:crypto";

/** What {@link newId} has given out last: the millisecond, as it begins an id, and how many in it. */
const last = { ms: 0, prefix: "", count: 0 };
const IDS_PER_MS = 0x1000;
/** The variant and 62 random bits: what tells this process from every other. */
const tail = randomUUID().slice(18);

/**
 * A new unique id for a job, a run or an event: a UUID of version 7 (RFC 9562), later ones sort after
 * earlier ones of this process. An index over them grows at its end; with random ones every insert
 * dirties a page of its own, and a commit writes several times as much.
 */
export function newId(): string {
  const now = Date.now();
  last.count += 1;
  if (now > last.ms || last.count === IDS_PER_MS) {
    last.ms = Math.max(now, last.ms + 1);
    last.count = 0;
    const time = last.ms.toString(16).padStart(12, "0");
    last.prefix = `${time.slice(0, 8)}-${time.slice(8)}-7`;
  }
  return `${last.prefix}${last.count.toString(16).padStart(3, "0")}${tail}`;
}

/** `bytes` random bytes as lower-case hex. */
export function randomHex(bytes: number): string {
  return randomBytes(bytes).toString("hex");
}

/** What an instance, capability or node id may look like; such a name is safe as a path segment. */
export const NAME_PATTERN = /^[A-Za-z0-9_-]{1,64}$/u;
