import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher, Pool } from "undici";
import { PendingJson } from "./response-reader.ts";

export interface ExchangeRequest {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
}

/** A whole answer, its body read within the limits and parsed. */
export interface Exchange {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: unknown;
}

/**
 * One request and its JSON answer. It works on the dispatcher itself: the stream that undici's
 * `request` makes of a body costs a third of a small call.
 *
 * @throws {CjmError} `RESPONSE_TOO_LARGE`, `RESPONSE_INVALID`; `signal.reason`; what broke the
 *   connection.
 */
export async function exchange(
  pool: Pool,
  request: ExchangeRequest,
  signal?: AbortSignal,
): Promise<Exchange> {
  signal?.throwIfAborted();
  const handler = new ExchangeHandler();
  const onAbort = (): void => {
    handler.abort(signal?.reason);
  };
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    pool.dispatch(request, handler);
    return await handler.answer;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

class ExchangeHandler implements Dispatcher.DispatchHandler {
  readonly #answer = Promise.withResolvers<Exchange>();
  readonly #pending = new PendingJson();
  #controller: Dispatcher.DispatchController | undefined;
  #head: Omit<Exchange, "body"> | undefined;
  /** Set once it is given up; what still comes is of no interest. */
  #stopped: Error | undefined;

  get answer(): Promise<Exchange> {
    return this.#answer.promise;
  }

  /** Also before the request has a connection: it is then given up as soon as it gets one. */
  abort(reason: unknown): void {
    this.#answer.reject(reason);
    this.#stopped = reason instanceof Error ? reason : new Error(String(reason));
    this.#controller?.abort(this.#stopped);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#stopped !== undefined) controller.abort(this.#stopped);
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    if (status >= 200) this.#head = { status, headers };
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#stopped !== undefined) return;
    try {
      this.#pending.push(chunk);
    } catch (error) {
      this.abort(error);
    }
  }

  onResponseEnd(): void {
    try {
      const head = this.#head ?? { status: 0, headers: {} };
      this.#answer.resolve({ ...head, body: this.#pending.take() });
    } catch (error) {
      this.#answer.reject(error);
    }
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#answer.reject(error);
  }
}
