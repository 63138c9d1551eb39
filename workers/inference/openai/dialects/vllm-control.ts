import { z } from "cjm-substrate/worker";
import type { TextInput } from "../../engine.ts";
import { ask } from "./ask.ts";
import type { Distribution, Link } from "./dialect.ts";
import { completionSchema } from "./openai-wire.ts";
import { PROBE_PROMPT, PROBE_TOP } from "./probe.ts";

const tokenizedSchema = z.object({ count: z.int(), tokens: z.array(z.int()) });
const sleepingSchema = z.object({ is_sleeping: z.boolean() });
const versionSchema = z.object({ version: z.string() });

/** vLLM's endpoints that are not OpenAI's. Sleep, wake and tokenize are at the server's root. */
export class VllmControl {
  readonly link: Link;

  constructor(link: Link) {
    this.link = link;
  }

  async version(signal: AbortSignal): Promise<string> {
    return (await ask(this.link, "GET", "/version", { signal, schema: versionSchema })).version;
  }

  async tokenize(input: TextInput, model: string, signal: AbortSignal): Promise<readonly number[]> {
    const body =
      input.kind === "prompt"
        ? { model, prompt: input.prompt }
        : { model, messages: input.messages, add_generation_prompt: true };
    return (await ask(this.link, "POST", "/tokenize", { signal, body, schema: tokenizedSchema }))
      .tokens;
  }

  /** Log-probabilities after the probe text, greedily and alone. */
  async probe(model: string, signal: AbortSignal): Promise<Distribution> {
    const { api } = this.link.address;
    const body = {
      model,
      prompt: PROBE_PROMPT,
      max_tokens: 1,
      temperature: 0,
      seed: 0,
      logprobs: PROBE_TOP,
    };
    const spec = {
      method: "POST",
      url: `${api}/completions`,
      body,
      signal,
      what: "/completions",
    } as const;
    const { choices } = await this.link.http.json(spec, completionSchema);
    const logprobs = choices[0]?.logprobs;
    if (logprobs === null || logprobs === undefined || !("tokens" in logprobs)) return new Map();
    return new Map(Object.entries(logprobs.top_logprobs?.[0] ?? {}));
  }

  /** Undefined where the server has no such endpoint: it is not in development mode. */
  async isSleeping(signal: AbortSignal): Promise<boolean | undefined> {
    const url = `${this.link.address.root}/is_sleeping`;
    const what = "/is_sleeping";
    const { text, refusal } = await this.link.http.attempt({
      method: "GET",
      url,
      signal,
      what,
      timeoutMs: this.#timeoutMs,
    });
    if (refusal?.status === 404) return undefined;
    return sleepingSchema.safeParse(safeJson(text)).data?.is_sleeping;
  }

  /** POST whose answer is its status; it may move the model's weights, so it may take as long. */
  async post(path: string, signal: AbortSignal, body?: unknown): Promise<void> {
    const url = `${this.link.address.root}${path}`;
    await this.link.http.text({
      method: "POST",
      url,
      body,
      signal,
      what: path,
    });
  }

  /** Requests that run or wait on the server, of whomever; undefined where it does not tell. */
  async requests(signal: AbortSignal): Promise<number | undefined> {
    const url = `${this.link.address.root}/metrics`;
    const what = "/metrics";
    const timeoutMs = this.#timeoutMs;
    const { text, refusal } = await this.link.http.attempt({
      method: "GET",
      url,
      signal,
      what,
      timeoutMs,
    });
    if (refusal !== undefined) return undefined;
    const counts = [
      ...text.matchAll(/^vllm:num_requests_(?:running|waiting)(?:\{[^}\n]*\})? ([0-9.e+]+)$/gmu),
    ];
    if (counts.length === 0) return undefined;
    return counts.reduce((sum, [, count]) => sum + Number(count), 0);
  }

  get #timeoutMs(): number {
    return this.link.config.control_seconds * 1000;
  }
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
