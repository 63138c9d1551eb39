import { randomBytes, timingSafeEqual } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { join } from "node:path";
import type { WorkerLogger } from "cjm-substrate/worker";
import type { Service } from "../service.ts";
import { EndpointError, toHttpFault } from "./http-fault.ts";
import { answer, type Exchange } from "./openai-api.ts";

const BODY_MAX_BYTES = 4 * 1024 * 1024;
const CONNECTIONS_MAX = 512;

export interface EndpointParts {
  readonly service: Service;
  readonly dataFolder: string;
  readonly log: WorkerLogger;
}

/**
 * The OpenAI API over HTTP. Every request needs the key: `INFERENCE_API_KEY`, or one drawn at the
 * start and kept in a file that only this user reads.
 */
export class Endpoint {
  readonly url: string;
  readonly keyFile: string | null;
  readonly #server: Server;

  private constructor(server: Server, url: string, keyFile: string | null) {
    this.#server = server;
    this.url = url;
    this.keyFile = keyFile;
  }

  static async open(
    { host, port }: { readonly host: string; readonly port: number },
    { service, dataFolder, log }: EndpointParts,
  ): Promise<Endpoint> {
    const given = process.env["INFERENCE_API_KEY"];
    const key = given ?? randomBytes(24).toString("base64url");
    const keyFile = given === undefined ? join(dataFolder, "endpoint.key") : null;
    if (keyFile !== null) {
      await mkdir(dataFolder, { recursive: true });
      await writeFile(keyFile, key, { mode: 0o600 });
    }
    const server = createServer((request, response) => {
      handle(request, response, { service, key, log }).catch((error: unknown) => {
        log.error("a request of the endpoint failed", error);
        response.destroy();
      });
    });
    server.maxConnections = CONNECTIONS_MAX;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, resolve);
    });
    const address = server.address();
    const bound = typeof address === "object" && address !== null ? address.port : port;
    return new Endpoint(
      server,
      `http://${host.includes(":") ? `[${host}]` : host}:${bound}/v1`,
      keyFile,
    );
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.#server.closeAllConnections();
    await closed;
  }
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  {
    service,
    key,
    log,
  }: { readonly service: Service; readonly key: string; readonly log: WorkerLogger },
): Promise<void> {
  const left = new AbortController();
  response.once("close", () => left.abort(new Error("the client has left")));
  try {
    authorise(request, key);
    const path = new URL(request.url ?? "/", "http://endpoint").pathname;
    const method = request.method ?? "GET";
    const body = method === "POST" ? await readBody(request) : undefined;
    const exchange: Exchange = { method, path, body, signal: left.signal };
    await answer(service, exchange, response);
  } catch (error) {
    if (left.signal.aborted) return;
    const { status, body } = toHttpFault(error);
    if (status >= 500) log.error("the endpoint answered with an error", error);
    if (response.headersSent) {
      response.end(`data: ${JSON.stringify(body)}\n\n`);
      return;
    }
    const text = JSON.stringify(body);
    response.writeHead(status, { "content-type": "application/json" }).end(text);
  }
}

function authorise({ headers }: IncomingMessage, key: string): void {
  const given = Buffer.from(headers.authorization ?? "");
  const wanted = Buffer.from(`Bearer ${key}`);
  if (given.byteLength === wanted.byteLength && timingSafeEqual(given, wanted)) return;
  throw new EndpointError(401, "invalid_api_key", "Incorrect API key provided");
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request) {
    if (!Buffer.isBuffer(part)) continue;
    length += part.byteLength;
    if (length > BODY_MAX_BYTES) {
      throw new EndpointError(
        413,
        "request_too_large",
        `A request holds at most ${BODY_MAX_BYTES} bytes`,
      );
    }
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf8"));
  } catch {
    throw new EndpointError(400, "invalid_json", "The request is no JSON");
  }
}
