import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** Fields of the bodies that the stubs and the tests read; each API has some of them. */
export interface Body {
  readonly model: string;
  readonly prompt: string | readonly number[];
  readonly messages?: readonly { readonly content: string }[];
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean };
  readonly logprobs?: number | boolean;
  readonly seed?: number;
  readonly structured_outputs?: unknown;
  readonly lora_name: string;
  readonly lora_path: string;
  readonly lora?: readonly { readonly id: number; readonly scale: number }[];
  readonly keep_alive?: string | number;
  readonly content: string;
  readonly n_probs: number;
  readonly grammar?: string;
  readonly json_schema?: unknown;
  readonly cache_prompt?: boolean;
}

/** One request that a stub received. */
export interface Received {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage["headers"];
  readonly body: Body;
  /** Resolves when the client has closed the connection before the answer's end. */
  readonly left: Promise<void>;
}

export type Route = (request: Received, response: ServerResponse) => Promise<void> | void;

/**
 * An HTTP server that speaks what a test gives it, truthfully or not. It is no model server: it has
 * no model, and shows only how the engine deals with an answer.
 */
export class StubServer implements AsyncDisposable {
  readonly url: string;
  readonly received: Received[] = [];
  readonly #server: Server;
  readonly #waiting: { path: string; take: (request: Received) => void }[] = [];

  private constructor(server: Server) {
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** Keys of `routes` are `METHOD /path`; what is not among them is 404. */
  static async start(routes: Record<string, Route>): Promise<StubServer> {
    const server = createServer((request, response) => {
      void stub.#serve(routes, request, response);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const stub: StubServer = new StubServer(server);
    return stub;
  }

  /** Requests for a path, in order. */
  of(path: string): Received[] {
    return this.received.filter((request) => request.path === path);
  }

  /** The next request for a path. */
  async next(path: string): Promise<Received> {
    const { promise, resolve } = Promise.withResolvers<Received>();
    this.#waiting.push({ path, take: resolve });
    return promise;
  }

  /** Open connections. */
  async connections(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.getConnections((error, count) => {
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }

  /** Ends every connection as a crash does, and takes no more. */
  async crash(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.crash();
  }

  async #serve(
    routes: Record<string, Route>,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? "", "http://stub");
    let text = "";
    for await (const chunk of request) text += String(chunk);
    const left = Promise.withResolvers<void>();
    response.once("close", () => {
      if (!response.writableFinished) left.resolve();
    });
    const received: Received = {
      method: request.method ?? "",
      path: pathname,
      query: searchParams,
      headers: request.headers,
      body: JSON.parse(text === "" ? "{}" : text) as Body,
      left: left.promise,
    };
    this.received.push(received);
    const at = this.#waiting.findIndex(({ path }) => path === pathname);
    if (at !== -1) this.#waiting.splice(at, 1)[0]?.take(received);
    const route = routes[`${received.method} ${pathname}`];
    if (route === undefined) json(response, { detail: "Not Found" }, 404);
    else await route(received, response);
  }
}

export function json(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

/** Begins an event stream; the function sends one event. */
export function events(response: ServerResponse): (value: unknown) => void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  return (value) => {
    response.write(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
  };
}
