import { randomBytes, randomUUID } from "node:crypto";

/** A new unique id for a job, a run or an event. */
export function newId(): string {
  return randomUUID();
}

/** `bytes` random bytes as lower-case hex. */
export function randomHex(bytes: number): string {
  return randomBytes(bytes).toString("hex");
}

/** What an instance, capability or node id may look like; such a name is safe as a path segment. */
export const NAME_PATTERN = /^[A-Za-z0-9_-]{1,64}$/u;
