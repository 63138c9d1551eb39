import { errors, Pool } from "undici";
import type { Dispatcher } from "undici";
import type { z } from "zod";
import { CjmError } from "../errors/index.ts";
import { healthSchema, jobErrorBodySchema } from "../protocol/index.ts";
import { within } from "../util/wait.ts";
import { type Exchange, exchange, type ExchangeRequest } from "./exchange.ts";
import { failureOf, refusalOf } from "./failures.ts";
import { pacedConnector } from "./paced-socket.ts";
import { readJson, readJsonLines } from "./response-reader.ts";
import {
  describeExit,
  startTimeout,
  type WorkerExit,
  WorkerProcess,
  type WorkerSink,
  type WorkerSpec,
} from "./worker-process.ts";

/** How long a broken connection waits for the exit that probably caused it. */
const EXIT_EVIDENCE_MS = 1_000;
const MAX_CONNECTIONS = 64;

type Request = Omit<ExchangeRequest, "headers">;

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** An answer and the headers that came with it. */
export interface Answer<T> {
  readonly value: T;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/**
 * A worker and the way to talk to it. Every response is bounded and parsed; a worker may be broken.
 *
 * No time limit of its own ends a call: only the caller's signal or the worker's death does.
 * Own it with `await using`: leaving the scope ends the worker.
 */
export class WorkerConnection implements AsyncDisposable {
  readonly worker: WorkerProcess;
  readonly #pool: Pool;
  readonly #capability: string;
  readonly #headers: Readonly<Record<string, string>>;

  private constructor(worker: WorkerProcess, capability: string) {
    this.worker = worker;
    this.#capability = capability;
    this.#pool = openPool(worker.ready.address);
    this.#headers = {
      authorization: `Bearer ${worker.token}`,
      "content-type": "application/json",
    };
  }

  /**
   * Starts a worker and asks it who it is.
   *
   * @throws what {@link WorkerProcess.start} throws; `WORKER_HANDSHAKE` if it reports another name.
   */
  static async start(
    spec: WorkerSpec,
    sink: WorkerSink,
    signal?: AbortSignal,
  ): Promise<WorkerConnection> {
    const worker = await WorkerProcess.start(spec, sink, signal);
    const connection = new WorkerConnection(worker, spec.capability);
    // A foreign worker has been asked, and names its class rather than its package.
    if (spec.foreignAddress !== undefined) return connection;
    const late = AbortSignal.timeout(spec.startTimeoutMs);
    const stop = signal === undefined ? late : AbortSignal.any([signal, late]);
    try {
      const { value } = await connection.get("/health", healthSchema, { signal: stop });
      if (value.name !== spec.capability) {
        throw new CjmError(
          "WORKER_HANDSHAKE",
          `Worker says it is "${value.name}"; its manifest says "${spec.capability}"`,
        );
      }
      return connection;
    } catch (error) {
      await connection.kill();
      throw late.aborted && signal?.aborted !== true ? startTimeout(spec) : error;
    }
  }

  async get<T>(path: string, schema: z.ZodType<T>, options: CallOptions = {}): Promise<Answer<T>> {
    return await this.#request({ method: "GET", path, body: null }, schema, options);
  }

  /** @throws the worker's own error, typed; `RESPONSE_INVALID`, `RESPONSE_TOO_LARGE`, `WORKER_EXITED`, `WORKER_OOM`. */
  async post<T>(
    path: string,
    body: unknown,
    schema: z.ZodType<T>,
    options: CallOptions = {},
  ): Promise<Answer<T>> {
    return await this.#request(
      { method: "POST", path, body: JSON.stringify(body ?? null) },
      schema,
      options,
    );
  }

  /** Streams the chunks of an answer; leaving the loop closes the connection, which cancels the call. */
  async *stream(path: string, body: unknown, options: CallOptions = {}): AsyncGenerator {
    const request = { method: "POST" as const, path, body: JSON.stringify(body) };
    const response = await this.#open(request, options);
    try {
      for await (const line of readJsonLines(response.body)) {
        const failure = jobErrorBodySchema.safeParse(line);
        if (failure.success) throw failureOf(failure.data._job_error);
        yield line;
      }
    } catch (error) {
      throw await this.#explain(error, options);
    } finally {
      response.body.destroy();
    }
  }

  async kill(): Promise<WorkerExit> {
    const exit = await this.worker.kill();
    await this.#pool.destroy();
    return exit;
  }

  /** SIGTERM, grace, SIGKILL; resolves when the whole tree is gone. */
  async terminate(graceMs: number): Promise<WorkerExit> {
    const exit = await this.worker.terminate(graceMs);
    await this.#pool.destroy();
    return exit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #request<T>(
    request: Request,
    schema: z.ZodType<T>,
    { signal }: CallOptions,
  ): Promise<Answer<T>> {
    const { status, headers, body } = await this.#exchange(request, signal);
    if (!isSuccess(status)) throw this.#failure(status, body, request.path);
    const parsed = schema.safeParse(body);
    if (parsed.success) return { value: parsed.data, headers };
    const fields = parsed.error.issues.map((issue) => issue.path.join(".") || "(body)");
    throw new CjmError(
      "RESPONSE_INVALID",
      `Worker of "${this.#capability}" answered ${request.path} with wrong fields: ${fields.join(", ")}`,
      { cause: parsed.error, fieldsInvalid: fields },
    );
  }

  async #exchange(request: Request, signal: AbortSignal | undefined): Promise<Exchange> {
    try {
      return await exchange(this.#pool, { ...request, headers: this.#headers }, signal);
    } catch (error) {
      throw await this.#explain(error, { signal });
    }
  }

  /** An answer whose body is read as it comes. */
  async #open(request: Request, { signal }: CallOptions): Promise<Dispatcher.ResponseData> {
    try {
      const response = await this.#pool.request({
        ...request,
        headers: this.#headers,
        ...(signal !== undefined && { signal }),
      });
      const { statusCode, body } = response;
      if (!isSuccess(statusCode)) {
        throw this.#failure(statusCode, await readJson(body), request.path);
      }
      return response;
    } catch (error) {
      throw await this.#explain(error, { signal });
    }
  }

  #failure(status: number, body: unknown, path: string): CjmError {
    const failure = jobErrorBodySchema.safeParse(body);
    if (failure.success) return failureOf(failure.data._job_error);
    return refusalOf(status, body, `Worker of "${this.#capability}" answered ${path}`);
  }

  /** The error the caller should see: its own abort, the worker's death, or what was thrown. */
  async #explain(error: unknown, { signal }: CallOptions): Promise<unknown> {
    if (signal?.aborted === true) return signal.reason;
    if (error instanceof CjmError) return error;
    const exit = isNoHttp(error) ? undefined : await within(this.worker.exited, EXIT_EVIDENCE_MS);
    if (exit !== undefined) return deathError(this.#capability, exit, error);
    return new CjmError(
      "RESPONSE_INVALID",
      `Worker of "${this.#capability}" broke the connection: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

/** True for bytes that no death of a worker explains: the parser has read too much or what is no HTTP. */
function isNoHttp(error: unknown): boolean {
  if (error instanceof errors.HeadersOverflowError) return true;
  return error instanceof errors.HTTPParserError && !error.message.includes("EOF");
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 300;
}

/** The error of a call that its worker's end cut off. */
export function deathError(capability: string, exit: WorkerExit, cause?: unknown): CjmError {
  const details = { capability, ...exit };
  if (exit.oomKills > 0 && !exit.isEndedByHost) {
    return new CjmError(
      "WORKER_OOM",
      `Worker of "${capability}" ended ${describeExit(exit)} during a call: memory ran out, and the kernel killed ${exit.oomKills} of its processes`,
      { cause, details },
    );
  }
  if (exit.signal === "SIGKILL" && !exit.isEndedByHost) {
    return new CjmError(
      "WORKER_OOM",
      `Worker of "${capability}" was killed during a call; the usual cause is that memory ran out`,
      { cause, details },
    );
  }
  const by = exit.isEndedByHost ? "was ended by the host" : `ended ${describeExit(exit)}`;
  return new CjmError("WORKER_EXITED", `Worker of "${capability}" ${by} during a call`, {
    cause,
    details,
  });
}

function openPool(address: string): Pool {
  const options = { connections: MAX_CONNECTIONS, headersTimeout: 0, bodyTimeout: 0 };
  const path = /^unix:(?<path>.+)$/u.exec(address)?.groups?.["path"];
  if (path !== undefined) {
    return new Pool("http://localhost", { ...options, connect: pacedConnector({ path }) });
  }
  const port = /^tcp:127\.0\.0\.1:(?<port>\d+)$/u.exec(address)?.groups?.["port"];
  if (port !== undefined) {
    const host = "127.0.0.1";
    const connect = pacedConnector({ host, port: Number(port) });
    return new Pool(`http://${host}:${port}`, { ...options, connect });
  }
  throw new CjmError("WORKER_HANDSHAKE", `Worker reports an address it may not have: ${address}`);
}
