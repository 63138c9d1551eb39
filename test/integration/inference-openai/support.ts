import { CjmError } from "cjm-substrate/worker";
import type { Engine, ResolvedAdapter, TextRequest } from "../../../workers/inference/engine.ts";
import type { Generation } from "../../../workers/inference/task/schemas.ts";
import {
  createOpenAiEngine,
  openAiConfigSchema,
  type OpenAiPorts,
} from "../../../workers/inference/openai/index.ts";

export const NEVER = new AbortController().signal;

export interface OwnedEngine extends Engine, AsyncDisposable {
  readonly logged: readonly string[];
}

/** An engine with short limits; own it with `await using`. */
export function openEngine(config: object, ports: Partial<OpenAiPorts> = {}): OwnedEngine {
  const logged: string[] = [];
  const log = (message: string): void => void logged.push(message);
  const limits = {
    connect_seconds: 5,
    control_seconds: 20,
    drain_seconds: 20,
    settle_seconds: 0.5,
  };
  const parsed = openAiConfigSchema.parse({ ...limits, ...config });
  const engine = createOpenAiEngine(parsed, { log, ...ports });
  return Object.assign(engine, {
    logged,
    [Symbol.asyncDispose]: () => engine.close(),
  });
}

type Asked = Omit<Partial<TextRequest>, "input"> & { prompt?: string; chat?: string };

export function requestOf({ prompt = "Say hello", chat, ...rest }: Asked = {}): TextRequest {
  const input =
    chat === undefined
      ? ({ kind: "prompt", prompt } as const)
      : ({ kind: "chat", messages: [{ role: "user", content: chat }] } as const);
  return { input, parameters: {}, stop: [], adapters: [], overflow: "refuse", ...rest };
}

export interface Collected {
  readonly deltas: readonly string[];
  readonly result: Generation;
}

/** Runs a generation to its end. */
export async function collect(
  engine: Engine,
  asked: Asked = {},
  signal: AbortSignal = NEVER,
): Promise<Collected> {
  const deltas: string[] = [];
  const stream = engine.stream(requestOf(asked), { signal });
  for (;;) {
    const next = await stream.next();
    if (next.done === true) return { deltas, result: next.value };
    deltas.push(next.value.text);
  }
}

/** The failure of a promise that has to fail with a `CjmError`. */
export async function failureOf(promise: Promise<unknown>): Promise<CjmError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof CjmError) return error;
    throw error;
  }
  throw new Error("expected a failure");
}

/** What a failure says, in the form that the tests compare. */
export async function reasonOf(promise: Promise<unknown>): Promise<string> {
  const { code, details } = await failureOf(promise);
  return `${code} ${String(details["reason"])}`;
}

export function adapter(given: Partial<ResolvedAdapter> = {}): ResolvedAdapter {
  return {
    id: "poet",
    path: "/adapters/poet",
    sha256: `sha256:${"a".repeat(64)}`,
    format: "peft",
    bytes: 10,
    base_model: null,
    rank: 4,
    alpha: 8,
    scale: 1,
    ...given,
  };
}
