import type { z } from "cjm-substrate/worker";
import type { Link } from "./dialect.ts";

/** Asks one of the server's own endpoints, at its root, for what generates nothing. */
export async function ask<Schema extends z.ZodType>(
  link: Link,
  method: "GET" | "POST",
  path: string,
  { signal, body, schema }: { signal: AbortSignal; body?: unknown; schema: Schema },
): Promise<z.output<Schema>> {
  const url = `${link.address.root}${path}`;
  const timeoutMs = link.config.control_seconds * 1000;
  return await link.http.json({ method, url, body, signal, timeoutMs, what: path }, schema);
}
