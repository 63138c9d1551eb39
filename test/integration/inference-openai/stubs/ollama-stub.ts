import type { ServerResponse } from "node:http";
import { json, StubServer, type Received, type Route } from "./stub-server.ts";

export interface OllamaLies {
  /** Unloading answers 200, and the model still runs. */
  readonly keepsRunning?: boolean;
  /** Loading answers 200, and nothing runs. */
  readonly loadsNothing?: boolean;
  /** Lines of /api/pull. */
  readonly pull?: readonly object[];
  readonly isMissing?: boolean;
  readonly pieces?: readonly string[];
}

export interface OllamaState {
  isRunning: boolean;
  isMissing: boolean;
}

export const WEIGHTS = "d".repeat(64);
export const PULLED = [
  { status: "pulling manifest" },
  { status: "pulling aaaa", digest: "sha256:aaaa", total: 100, completed: 40 },
  { status: "pulling aaaa", digest: "sha256:aaaa", total: 100, completed: 100 },
  { status: "success" },
] as const;

/** A stub of Ollama's documented API, for the model `tiny:latest`. */
export async function startOllama(
  lies: OllamaLies = {},
  extra: Record<string, Route> = {},
): Promise<StubServer & { state: OllamaState }> {
  const state = { isRunning: false, isMissing: lies.isMissing === true };
  const generate: Route = (request, response) => {
    const { keep_alive: keepAlive, prompt, messages } = request.body;
    if (state.isMissing) return json(response, { error: 'model "tiny" not found' }, 404);
    const isTask = prompt !== undefined || messages !== undefined;
    if (!isTask && keepAlive === 0) state.isRunning = lies.keepsRunning === true;
    else state.isRunning = lies.loadsNothing !== true;
    const done_reason = keepAlive === 0 ? "unload" : "load";
    if (!isTask) return json(response, { model: "tiny", response: "", done: true, done_reason });
    return speak(request, response, lies.pieces ?? ["Hel", "lo"]);
  };
  const stub = await StubServer.start({
    "GET /api/version": (_, response) => json(response, { version: "0.12.0" }),
    "POST /api/show": (_, response) => {
      if (state.isMissing) return json(response, { error: "model 'tiny' not found" }, 404);
      return json(response, {
        modelfile: `# Modelfile\nFROM /models/blobs/sha256-${WEIGHTS}\nTEMPLATE x\n`,
        template: "x",
        details: { family: "llama", quantization_level: "Q4_0" },
        model_info: {
          "general.architecture": "llama",
          "general.parameter_count": 1234,
          "llama.context_length": 2048,
        },
      });
    },
    "GET /api/ps": (_, response) => {
      const model = { name: "tiny:latest", model: "tiny:latest", size: 1000, size_vram: 250 };
      json(response, { models: state.isRunning ? [model] : [] });
    },
    "POST /api/pull": (_, response) => {
      response.writeHead(200, { "content-type": "application/x-ndjson" });
      for (const line of lies.pull ?? PULLED) response.write(`${JSON.stringify(line)}\n`);
      if (lies.pull === undefined) state.isMissing = false;
      response.end();
    },
    "POST /api/generate": generate,
    "POST /api/chat": generate,
    ...extra,
  });
  return Object.assign(stub, { state });
}

/** An answer line by line; the last line says how it ended. */
export function speak(
  request: Received,
  response: ServerResponse,
  pieces: readonly string[],
  end: object | null = { done: true, done_reason: "stop", prompt_eval_count: 4, eval_count: 3 },
): void {
  const isChat = request.path === "/api/chat";
  const said = (text: string): object =>
    isChat ? { message: { role: "assistant", content: text } } : { response: text };
  const line = (value: object): void => {
    response.write(`${JSON.stringify({ model: request.body.model, ...value })}\n`);
  };
  response.writeHead(200, { "content-type": "application/x-ndjson" });
  for (const piece of pieces) {
    const logprobs = [
      { token: piece, logprob: -0.5, top_logprobs: [{ token: piece, logprob: -0.5 }] },
    ];
    const isAsked = request.body.logprobs === true;
    line({ ...said(piece), done: false, ...(isAsked ? { logprobs } : {}) });
  }
  if (end !== null) line({ ...said(""), ...end });
  response.end();
}
