import { IncomingMessage } from "node:http";
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
  const env: Partial<HttpBindings> | undefined = c.env;
  const incoming = env?.incoming;
  // Straight from the socket: a web stream around every body costs more than the call itself.
  if (incoming instanceof IncomingMessage) return readIncoming(incoming);
  const body = new PendingBody(c.req.header("content-length"));
  const stream: AsyncIterable<Uint8Array> | null = c.req.raw.body;
  if (stream !== null) for await (const chunk of stream) body.push(chunk);
  return body.parse();
}

/**
 * As {@link readJsonBody}, of a request of `node:http`. Where it refuses, the rest is read and
 * dropped, so that the refusal can still be sent.
 */
export async function readIncoming(incoming: IncomingMessage): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onData = (chunk: Buffer): void => {
    try {
      body.push(chunk);
    } catch (error) {
      incoming.off("data", onData).resume();
      reject(error);
    }
  };
  const body = new PendingBody(incoming.headers["content-length"]);
  incoming.on("data", onData).once("end", resolve).once("error", reject);
  // A connection that closes in the middle ends the stream with neither.
  incoming.once("close", reject);
  await promise;
  return body.parse();
}

class PendingBody {
  readonly #scanner = new BodyScanner();
  readonly #chunks: Uint8Array[] = [];

  constructor(contentLength: string | undefined) {
    if (Number(contentLength ?? 0) <= BODY_LIMITS.bytes) return;
    throw tooLarge(`more than ${BODY_LIMITS.bytes} bytes`);
  }

  push(chunk: Uint8Array): void {
    const excess = this.#scanner.push(chunk);
    if (excess !== undefined) throw tooLarge(excess);
    this.#chunks.push(chunk);
  }

  parse(): unknown {
    const [first] = this.#chunks;
    if (first === undefined) return {};
    const bytes = this.#chunks.length > 1 ? Buffer.concat(this.#chunks) : first;
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new CjmError("CAPABILITY_INPUT", "the body is not JSON", { cause: error });
    }
  }
}

function tooLarge(what: string): CjmError {
  return new CjmError("REQUEST_TOO_LARGE", `the body has ${what}; larger things are files`);
}
