import { completions, models, type Script } from "./openai-stub.ts";
import { json, StubServer, type Body, type Route } from "./stub-server.ts";

/** What the stub says that is not so, or does not have. Each is something vLLM has been seen to do. */
export interface VllmLies {
  /** @default "0.11.0" */
  readonly version?: string;
  /** Without VLLM_SERVER_DEV_MODE: no /sleep, /wake_up, /is_sleeping. */
  readonly isProduction?: boolean;
  /** Without VLLM_ALLOW_RUNTIME_LORA_UPDATING. */
  readonly hasNoLora?: boolean;
  /** /sleep answers 200 and nothing sleeps. */
  readonly staysAwake?: boolean;
  /** Share of its VRAM that a sleep gives back. @default 1 */
  readonly freedShare?: number;
  /** /wake_up answers 200 and it still sleeps. */
  readonly staysAsleep?: boolean;
  /** Other answers after it woke up. */
  readonly wakesUpWrong?: boolean;
  /** /load_lora_adapter answers 200 and does not list it. */
  readonly loadsNothing?: boolean;
  /** A loaded adapter changes no answer. */
  readonly appliesNothing?: boolean;
  /** Answers with another model than it was asked for. */
  readonly answersWithBase?: boolean;
  /** After an adapter was unloaded, the base answers otherwise. */
  readonly leavesTraces?: boolean;
}

export interface VllmState {
  isSleeping: boolean;
  /** MB that something would measure. */
  vramMb: number;
  /** Requests of somebody else that run. */
  others: number;
  readonly adapters: Map<string, string>;
  /** What was asked of it, in order, as `METHOD /path?query`. */
  readonly calls: string[];
  lies: VllmLies;
}

const FULL_MB = 20_000;

/** A stub of vLLM's documented API: /v1, LoRA at run time, sleep and wake at the root, /metrics. */
export async function startVllm(
  lies: VllmLies = {},
  script: (body: Body) => Partial<Script> = () => ({}),
): Promise<StubServer & { state: VllmState }> {
  const state: VllmState = {
    isSleeping: false,
    vramMb: FULL_MB,
    others: 0,
    adapters: new Map(),
    calls: [],
    lies,
  };
  const routes = {
    ...base(state),
    ...(lies.isProduction === true ? {} : sleepRoutes(state)),
    ...(lies.hasNoLora === true ? {} : loraRoutes(state)),
    ...generating(state, script),
  };
  const noted = Object.entries(routes).map(([key, route]): [string, Route] => [
    key,
    (request, response) => {
      const query = request.query.size === 0 ? "" : `?${request.query.toString()}`;
      state.calls.push(`${request.method} ${request.path}${query}`);
      return route(request, response);
    },
  ]);
  return Object.assign(await StubServer.start(Object.fromEntries(noted)), { state });
}

function base(state: VllmState): Record<string, Route> {
  return {
    "GET /version": (_, response) => json(response, { version: state.lies.version ?? "0.11.0" }),
    "GET /metrics": (_, response) => {
      response.end(
        `# TYPE vllm:num_requests_running gauge\n` +
          `vllm:num_requests_running{engine="0",model_name="tiny"} ${state.others.toFixed(1)}\n` +
          `vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0\n`,
      );
    },
    "GET /v1/models": (request, response) => {
      const adapters = [...state.adapters].map(([id, root]) => ({ id, root, parent: "tiny" }));
      return models({ id: "tiny", max_model_len: 64 }, ...adapters)(request, response);
    },
    "POST /tokenize": ({ body }, response) => {
      const text = body.prompt ?? JSON.stringify(body.messages);
      const tokens = [1, ...Array.from({ length: text.length }, (_, at) => 100 + at)];
      json(response, { count: tokens.length, max_model_len: 64, tokens });
    },
  };
}

function sleepRoutes(state: VllmState): Record<string, Route> {
  return {
    "POST /sleep": (_, response) => {
      state.isSleeping = state.lies.staysAwake !== true;
      if (state.isSleeping) state.vramMb = FULL_MB * (1 - (state.lies.freedShare ?? 1));
      response.writeHead(200).end();
    },
    "POST /wake_up": ({ query }, response) => {
      const isWhole = query.get("tags") !== "weights";
      if (isWhole && state.lies.staysAsleep !== true) {
        state.isSleeping = false;
        state.vramMb = FULL_MB;
      }
      response.writeHead(200).end();
    },
    "GET /is_sleeping": (_, response) => json(response, { is_sleeping: state.isSleeping }),
    "POST /collective_rpc": (_, response) => json(response, { results: [null] }),
  };
}

function loraRoutes(state: VllmState): Record<string, Route> {
  return {
    "POST /v1/load_lora_adapter": ({ body }, response) => {
      if (body.lora_path.includes("wrong-base")) {
        const message = "lora_A has shape (4, 128), expected (4, 64)";
        return json(response, { error: { message, type: "InternalServerError", code: 500 } }, 500);
      }
      if (state.lies.loadsNothing !== true) state.adapters.set(body.lora_name, body.lora_path);
      return void response.end(`Success: LoRA adapter '${body.lora_name}' added successfully.`);
    },
    "POST /v1/unload_lora_adapter": ({ body }, response) => {
      if (!state.adapters.delete(body.lora_name)) {
        const message = `The lora adapter '${body.lora_name}' cannot be found.`;
        return json(response, { error: { message, type: "NotFoundError", code: 404 } }, 404);
      }
      return void response.end("Success");
    },
  };
}

function generating(
  state: VllmState,
  script: (body: Body) => Partial<Script>,
): Record<string, Route> {
  const answers = completions(({ body }) => ({
    pieces: ["Hel", "lo"],
    finish: "stop",
    ...(state.lies.answersWithBase === true ? { model: "tiny" } : {}),
    ...(typeof body.logprobs === "number" ? { logprobs: () => probabilities(state, body) } : {}),
    ...script(body),
  }));
  const guarded = Object.entries(answers).map(([key, route]): [string, Route] => [
    key,
    (request, response) => {
      const { model } = request.body;
      if (state.isSleeping) return json(response, { error: { message: "sleeping" } }, 500);
      if (model === "tiny" || state.adapters.has(model)) return route(request, response);
      const message = `The model \`${model}\` does not exist.`;
      return json(response, { error: { message, type: "NotFoundError", code: 404 } }, 404);
    },
  ]);
  return Object.fromEntries(guarded);
}

/** The likeliest next tokens: those of the base, changed by an adapter or by a lie. */
function probabilities({ lies, calls }: VllmState, { model }: Body): object {
  const isAdapted = model !== "tiny" && lies.appliesNothing !== true;
  const hasWoken = calls.some((call) => call.startsWith("POST /wake_up"));
  const hasUnloaded = calls.some((call) => call.startsWith("POST /v1/unload"));
  const isWrong =
    (lies.wakesUpWrong === true && hasWoken) || (lies.leavesTraces === true && hasUnloaded);
  const change = (isAdapted ? 0.5 : 0) + (isWrong ? 1 : 0);
  const top = { a: -0.1 - change, b: -2.4, c: -5 };
  return { tokens: ["a"], token_logprobs: [top.a], top_logprobs: [top] };
}
