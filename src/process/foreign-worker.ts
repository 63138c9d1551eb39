import { setTimeout as delay } from "node:timers/promises";
import { Client } from "undici";
import { healthSchema, PROTOCOL_VERSION, type ReadyFrame } from "../protocol/index.ts";
import { readJson } from "./response-reader.ts";

const RETRY_MS = 20;

/**
 * The handshake of a worker that knows no control stream (one of the original): it is ready when it
 * answers `/health` on its socket, whose file appears some time after its start.
 *
 * @throws `signal.reason` when the caller stops waiting.
 */
export async function awaitHealth(address: string, signal: AbortSignal): Promise<ReadyFrame> {
  const socketPath = address.replace(/^unix:/u, "");
  for (;;) {
    signal.throwIfAborted();
    const client = new Client("http://localhost", {
      socketPath,
      headersTimeout: 0,
      bodyTimeout: 0,
    });
    try {
      const { body } = await client.request({ method: "GET", path: "/health", signal });
      const health = healthSchema.parse(await readJson(body));
      const { pid, name, version } = health;
      return {
        type: "ready",
        protocol: PROTOCOL_VERSION,
        address,
        pid,
        name,
        version,
        features: [],
      };
    } catch (error) {
      if (!isNotThereYet(error)) throw error;
      await delay(RETRY_MS, undefined, { signal });
    } finally {
      await client.destroy();
    }
  }
}

function isNotThereYet(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOENT" || code === "ECONNREFUSED";
}
