import type { z } from "cjm-substrate/worker";
import { CjmError } from "cjm-substrate/worker";
import { Agent, request, type Dispatcher } from "undici";
import { failure, quote } from "../failure.ts";
import { readLines } from "./lines.ts";
import { parseJson, readRefusal, refusalError, type Refusal } from "./refusal.ts";
import { Watchdog } from "./watchdog.ts";

export interface HttpLimits {
  readonly connectMs: number;
  /** Longest silence before the first line of a stream, and for a whole answer that does not stream. */
  readonly firstMs: number;
  /** Longest silence between two pieces of a stream; comments and unfinished lines are silence. */
  readonly idleMs: number;
  /** Largest answer, streamed or not, in bytes. */
  readonly maxBytes: number;
  /** Connections at once; a request beyond waits. */
  readonly connections: number;
}

export interface HttpRequest {
  readonly method: "GET" | "POST";
  readonly url: string;
  readonly body?: unknown;
  readonly signal: AbortSignal;
  /** What is asked for, as the beginning of an error message. */
  readonly what: string;
  /** @default HttpLimits.firstMs */
  readonly timeoutMs?: number;
}

/** One answer of a stream: its lines, and a way to say that one of them was a sign of life. */
export interface LineStream {
  readonly lines: AsyncIterable<string>;
  readonly alive: () => void;
}

const MAX_LINE = 4 * 1024 * 1024;
const MAX_REST_MS = 250;
/** Enough for an error message; what is longer is not read. */
const MAX_REFUSAL_BYTES = 64 * 1024;

/**
 * HTTP to one model server, with a bound on everything it can do: time to connect, silence, size.
 * Whatever goes wrong is a `CjmError` that says which; an aborted signal's reason is thrown as it is
 * and the socket is closed at once, which is how every such server frees a slot.
 */
export class HttpClient {
  readonly #agent: Agent;
  readonly #limits: HttpLimits;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(limits: HttpLimits, apiKey: string | undefined) {
    this.#limits = limits;
    this.#headers = {
      accept: "application/json, text/event-stream, application/x-ndjson",
      ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
    };
    this.#agent = new Agent({
      connect: { timeout: limits.connectMs },
      connections: limits.connections,
      // The watchdog measures silence; undici's own timeouts would end a long prompt evaluation.
      headersTimeout: 0,
      bodyTimeout: 0,
      maxHeaderSize: 64 * 1024,
    });
  }

  /** One answer, parsed. @throws {CjmError} for a refusal, or an answer of another form. */
  async json<Schema extends z.ZodType>(
    spec: HttpRequest,
    schema: Schema,
  ): Promise<z.output<Schema>> {
    const parsed = schema.safeParse(parseJson(await this.text(spec)));
    if (parsed.success) return parsed.data;
    throw malformed(spec.what, parsed.error.message);
  }

  /** One answer as text. */
  async text(spec: HttpRequest): Promise<string> {
    const answer = await this.attempt(spec);
    if (answer.refusal !== undefined) throw refusalError(answer.refusal, spec.what);
    return answer.text;
  }

  /** One answer as text, with a refusal as a value. */
  async attempt(spec: HttpRequest): Promise<{ text: string; refusal?: Refusal }> {
    using watchdog = new Watchdog();
    watchdog.expect("answer", spec.timeoutMs ?? this.#limits.firstMs);
    return await this.#guarded(spec, watchdog, async (signal) => {
      const response = await this.#send(spec, signal);
      if (isSuccess(response)) return { text: await readText(response, this.#limits.maxBytes) };
      return { text: "", refusal: await readFailed(response) };
    });
  }

  /** Hands the lines of a streamed answer to `read`, and closes the connection when it ends early. */
  async *lines<T>(
    spec: HttpRequest,
    read: (stream: LineStream) => AsyncIterable<T>,
  ): AsyncGenerator<T, void, void> {
    using watchdog = new Watchdog();
    const left = new AbortController();
    const signal = AbortSignal.any([spec.signal, watchdog.signal, left.signal]);
    watchdog.expect("first piece of its answer", spec.timeoutMs ?? this.#limits.firstMs);
    const alive = (): void => {
      watchdog.expect("next piece of its answer", this.#limits.idleMs);
    };
    let rest: Dispatcher.ResponseData["body"] | undefined;
    try {
      const response = await this.#send(spec, signal);
      if (!isSuccess(response)) throw refusalError(await readFailed(response), spec.what);
      const limits = { maxLineLength: MAX_LINE, maxBytes: this.#limits.maxBytes };
      const body = response.body.iterator({ destroyOnReturn: false });
      yield* read({ lines: readLines(body, limits), alive });
      rest = response.body;
    } catch (error) {
      throw transportError(error, signal, spec.what);
    } finally {
      if (rest === undefined) left.abort();
      else finish(rest, left);
    }
  }

  /** Ends every connection at once. */
  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #guarded<T>(
    spec: HttpRequest,
    watchdog: Watchdog,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const left = new AbortController();
    const signal = AbortSignal.any([spec.signal, watchdog.signal, left.signal]);
    try {
      return await run(signal);
    } catch (error) {
      throw transportError(error, signal, spec.what);
    } finally {
      left.abort();
    }
  }

  async #send(spec: HttpRequest, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    signal.throwIfAborted();
    return request(spec.url, {
      method: spec.method,
      headers: {
        ...this.#headers,
        ...(spec.body === undefined ? {} : { "content-type": "application/json" }),
      },
      body: spec.body === undefined ? null : JSON.stringify(spec.body),
      signal,
      dispatcher: this.#agent,
    });
  }
}

/** The error for an answer that is not what the protocol says. */
export function malformed(what: string, detail: string): Error {
  return failure("server_error", `${what}: the server's answer has another form: ${quote(detail)}`);
}

/** Reads what follows a complete answer, so that its connection serves again; briefly. */
function finish(body: Dispatcher.ResponseData["body"], left: AbortController): void {
  const timer = setTimeout(() => {
    left.abort();
  }, MAX_REST_MS);
  body.once("error", () => undefined);
  body.once("close", () => {
    clearTimeout(timer);
  });
  body.resume();
}

function isSuccess(response: Dispatcher.ResponseData): boolean {
  return response.statusCode >= 200 && response.statusCode < 300;
}

async function readFailed(response: Dispatcher.ResponseData): Promise<Refusal> {
  const refusal = readRefusal(
    response.statusCode,
    await readText(response, MAX_REFUSAL_BYTES, true),
  );
  const seconds = Number(response.headers["retry-after"]);
  return seconds > 0 ? { ...refusal, retryAfterSeconds: seconds } : refusal;
}

async function readText(
  response: Dispatcher.ResponseData,
  maxBytes: number,
  isCut = false,
): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  const body: AsyncIterable<Uint8Array> = response.body;
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    if (bytes > maxBytes && isCut) break;
    if (bytes > maxBytes) {
      throw failure("response_too_large", `The server's answer is over ${maxBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

const NEVER_CONNECTED: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
]);
const BROKEN_OFF: ReadonlySet<string> = new Set([
  "ECONNRESET",
  "EPIPE",
  "ECONNABORTED",
  "UND_ERR_SOCKET",
  "UND_ERR_DESTROYED",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
]);

function transportError(error: unknown, signal: AbortSignal, what: string): unknown {
  if (signal.aborted) return signal.reason;
  if (error instanceof CjmError) return error;
  const code = codeOf(error);
  const said = error instanceof Error ? error.message : String(error);
  if (NEVER_CONNECTED.has(code)) {
    return failure("server_down", `${what}: no server answers (${code})`, { cause: error });
  }
  if (BROKEN_OFF.has(code)) {
    const message = `${what}: the server broke the connection off (${quote(said)})`;
    return failure("engine_crashed", message, { cause: error });
  }
  return failure("server_error", `${what}: no HTTP answer (${quote(said)})`, { cause: error });
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return "";
  if ("code" in error && typeof error.code === "string") return error.code;
  return error.cause === undefined ? "" : codeOf(error.cause);
}
