import type { HttpBindings } from "@hono/node-server";
import type { Context } from "hono";
import { CjmError } from "../errors/index.ts";
import { BodyScanner } from "../protocol/body-scanner.ts";
import { BODY_LIMITS } from "../protocol/limits.ts";

/** In process (`app.request()`) there are no bindings, as no Node request is behind the web one. */
export interface WorkerBindings {
  Bindings: Partial<HttpBindings>;
}

/**
 * The JSON body of a request; an absent one is `{}`.
 *
 * @throws {CjmError} `REQUEST_TOO_LARGE` as soon as a limit is passed, `CAPABILITY_INPUT` for what
 * is not JSON.
 */
export async function readJsonBody(c: Context<WorkerBindings>): Promise<unknown> {
  if (Number(c.req.header("content-length") ?? 0) > BODY_LIMITS.bytes) {
    throw tooLarge(`more than ${BODY_LIMITS.bytes} bytes`);
  }
  const scanner = new BodyScanner();
  const chunks: Uint8Array[] = [];
  for await (const chunk of bodyOf(c)) {
    const excess = scanner.push(chunk);
    if (excess !== undefined) throw tooLarge(excess);
    chunks.push(chunk);
  }
  if (chunks.length === 0) return {};
  const text = Buffer.concat(chunks).toString("utf8");
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CjmError("CAPABILITY_INPUT", "the body is not JSON", { cause: error });
  }
}

function bodyOf(c: Context<WorkerBindings>): AsyncIterable<Uint8Array> {
  const env: Partial<HttpBindings> | undefined = c.env;
  const incoming = env?.incoming;
  // Straight from the socket: a web stream around every body costs more than the call itself. It
  // stays open where the scan stops early, so that the refusal can still be sent.
  if (incoming !== undefined) return incoming.iterator({ destroyOnReturn: false });
  return c.req.raw.body ?? new ReadableStream({ start: (controller) => controller.close() });
}

function tooLarge(excess: string): CjmError {
  return new CjmError("REQUEST_TOO_LARGE", `the body has ${excess}; larger things are files`);
}
