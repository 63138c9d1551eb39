import { randomUUID } from "node:crypto";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { unsupported } from "../fault.ts";
import type { Service } from "../service.ts";
import { drain } from "../task/request.ts";
import type { Delta, Generation } from "../task/schemas.ts";
import { EndpointError } from "./http-fault.ts";
import {
  deltaChunk,
  firstChunk,
  lastChunks,
  wholeReply,
  type ReplyHead,
  type Route,
} from "./openai-reply.ts";
import { fromChat, fromCompletion, type Translated } from "./openai-request.ts";
import {
  chatRequestSchema,
  completionRequestSchema,
  embeddingRequestSchema,
  type ChatRequest,
  type CompletionRequest,
} from "./openai-schemas.ts";

export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
  /** Aborted when the client has left. */
  readonly signal: AbortSignal;
}

/** Answers one request of the API; what it throws has not been answered. */
export async function answer(
  service: Service,
  exchange: Exchange,
  response: ServerResponse,
): Promise<void> {
  const route = `${exchange.method} ${exchange.path}`;
  if (route === "GET /v1/models") {
    sendJson(response, { object: "list", data: await models(service) });
  } else if (exchange.method === "GET" && exchange.path.startsWith("/v1/models/")) {
    const id = decodeURIComponent(exchange.path.slice("/v1/models/".length));
    const found = (await models(service)).find((model) => model.id === id);
    if (found === undefined) throw unknownModel(id);
    sendJson(response, found);
  } else if (route === "POST /v1/chat/completions") {
    const request = chatRequestSchema.parse(exchange.body);
    const adapter = await adapterOf(service, request.model);
    await generate(
      service,
      { route: "chat", request, ...fromChat(request, adapter) },
      exchange,
      response,
    );
  } else if (route === "POST /v1/completions") {
    const request = completionRequestSchema.parse(exchange.body);
    const adapter = await adapterOf(service, request.model);
    const job = { route: "completion", request, ...fromCompletion(request, adapter) } as const;
    await generate(service, job, exchange, response);
  } else if (route === "POST /v1/embeddings") {
    await embed(service, exchange, response);
  } else {
    throw new EndpointError(404, "not_found", `There is no ${route}`);
  }
}

interface ModelEntry {
  readonly id: string;
  readonly object: "model";
  readonly created: number;
  readonly owned_by: string;
}

/** The model, and every loaded adapter as a model of its own. */
async function models(service: Service): Promise<ModelEntry[]> {
  const { id } = await service.engine.card();
  const ids = [id, ...service.adapters.all().map((adapter) => adapter.id)];
  return ids.map((id) => ({ id, object: "model", created: 0, owned_by: "cjm-substrate" }));
}

/** The adapter that a model's name means; undefined for the bare model. */
async function adapterOf(service: Service, model: string): Promise<string | undefined> {
  const card = await service.engine.card();
  if (model === card.id) return undefined;
  if (service.adapters.all().some(({ id }) => id === model)) return model;
  throw unknownModel(model);
}

function unknownModel(id: string): EndpointError {
  return new EndpointError(404, "model_not_found", `There is no model "${id}"`, "model");
}

interface Job extends Translated {
  readonly route: Route;
  readonly request: ChatRequest | CompletionRequest;
}

async function generate(
  service: Service,
  job: Job,
  { signal }: Exchange,
  response: ServerResponse,
): Promise<void> {
  const { route, request, input, asked } = job;
  const prefix = route === "chat" ? "chatcmpl" : "cmpl";
  const created = Math.floor(Date.now() / 1000);
  const head = { id: `${prefix}-${randomUUID()}`, created, model: request.model };
  const deltas = service.stream(input, asked, { signal });
  if (request.stream !== true) {
    sendJson(response, wholeReply(route, head, await drain(deltas)));
    return;
  }
  const withUsage = request.stream_options?.include_usage === true;
  await streamReply({ route, head, deltas, withUsage }, signal, response);
}

async function streamReply(
  reply: {
    readonly route: Route;
    readonly head: ReplyHead;
    readonly deltas: AsyncGenerator<Delta, Generation, void>;
    readonly withUsage: boolean;
  },
  signal: AbortSignal,
  response: ServerResponse,
): Promise<void> {
  const { route, head, deltas, withUsage } = reply;
  const send = async (event: object): Promise<void> => {
    if (!response.write(`data: ${JSON.stringify(event)}\n\n`)) {
      await once(response, "drain", { signal });
    }
  };
  try {
    // A failure before the first text still gets its status.
    let next = await deltas.next();
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const first = firstChunk(route, head);
    if (first !== undefined) await send(first);
    while (next.done !== true) {
      await send(deltaChunk(route, head, next.value));
      next = await deltas.next();
    }
    for (const chunk of lastChunks(route, head, next.value, withUsage)) await send(chunk);
    response.end("data: [DONE]\n\n");
  } finally {
    if (signal.aborted) await endOf(deltas);
  }
}

/** Ends a generation that nobody reads any more. */
async function endOf(deltas: AsyncGenerator<Delta, Generation, void>): Promise<void> {
  try {
    for await (const _ of deltas) break;
  } catch {
    // It was aborted: that is what ends it.
  }
}

async function embed(
  service: Service,
  { body, signal }: Exchange,
  response: ServerResponse,
): Promise<void> {
  const { engine } = service;
  const { model, input, encoding_format: encoding } = embeddingRequestSchema.parse(body);
  if (engine.embed === undefined) throw unsupported("embed", engine.name);
  if (model !== (await engine.card()).id) throw unknownModel(model);
  const texts = typeof input === "string" ? [input] : input;
  const { embeddings, usage } = await engine.embed(texts, { normalize: true }, { signal });
  const data = embeddings.map((vector, index) => ({
    object: "embedding",
    index,
    embedding: encoding === "base64" ? base64(vector) : vector,
  }));
  const { prompt_tokens: used } = usage;
  const counts = { prompt_tokens: used, total_tokens: used };
  sendJson(response, { object: "list", data, model, usage: counts });
}

function base64(vector: readonly number[]): string {
  return Buffer.from(Float32Array.from(vector).buffer).toString("base64");
}

function sendJson(response: ServerResponse, value: object): void {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
}
