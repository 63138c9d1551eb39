import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { z } from "cjm-substrate/worker";
import type { ResolvedAdapter } from "../../engine.ts";
import { failure, reasonOf } from "../failure.ts";
import type { AdapterSupport, Distribution, ServerFacts } from "./dialect.ts";
import type { LlamaControl } from "./llama-control.ts";
import { chunkSchema } from "./llama-wire.ts";
import { PROBE_PROMPT, PROBE_TOP } from "./probe.ts";

/** The scale of one of the server's adapters in one request. */
export interface LoraScale {
  readonly id: number;
  readonly scale: number;
}

interface Listed {
  readonly id: number;
  readonly path: string;
}

/**
 * LoRA adapters of llama-server: it reads its files when it starts, and every request says the
 * scale of each. An adapter is found among them by its content.
 */
export class LlamaAdapters implements AdapterSupport {
  readonly #control: LlamaControl;
  #listed: readonly Listed[] = [];
  readonly #loaded = new Map<string, number>();

  constructor(control: LlamaControl) {
    this.#control = control;
  }

  /**
   * Learns the server's list. Another one than before means that the server was started again: what
   * is known of its adapters is forgotten.
   */
  async list(signal: AbortSignal): Promise<readonly Listed[]> {
    const listed = (await this.#control.loras(signal)).map(({ id, path }) => ({ id, path }));
    if (JSON.stringify(listed) !== JSON.stringify(this.#listed)) this.#loaded.clear();
    this.#listed = listed;
    return listed;
  }

  /** One scale for each adapter the server has: those of the call, and 0 for all others. */
  scales(used: readonly ResolvedAdapter[]): readonly LoraScale[] {
    const scales = new Map(this.#listed.map(({ id }) => [id, 0]));
    for (const { id, sha256, scale } of used) {
      const held = this.#loaded.get(sha256);
      // The server accepts ids it does not have, and applies nothing.
      if (held === undefined) throw unknownAdapter(id);
      scales.set(held, (scales.get(held) ?? 0) + scale);
    }
    return [...scales].map(([id, scale]) => ({ id, scale }));
  }

  async load(adapter: ResolvedAdapter, _facts: ServerFacts, signal: AbortSignal): Promise<void> {
    if (adapter.format === "peft") {
      const message = `llama-server takes GGUF adapters, and ${adapter.path} is a PEFT folder`;
      throw failure("adapter_mismatch", message, { fields: ["adapters"] });
    }
    for (const { id, path } of await this.list(signal)) {
      if ((await hashOf(path, signal)) !== adapter.sha256) continue;
      this.#loaded.set(adapter.sha256, id);
      return;
    }
    throw unknownAdapter(adapter.path);
  }

  async unload(sha256: string): Promise<string> {
    this.#loaded.delete(sha256);
    return "llama-server keeps the adapter in memory until it ends; no call applies it";
  }

  async probe(
    adapters: readonly ResolvedAdapter[],
    _facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Distribution | undefined> {
    const { link } = this.#control;
    const body = {
      prompt: PROBE_PROMPT,
      n_predict: 1,
      n_probs: PROBE_TOP,
      temperature: 0,
      cache_prompt: false,
      // The server tells no probabilities of a token that is half a character, so it makes a whole
      // one; the probabilities are those before the grammar.
      grammar: "root ::= [ -~]",
      lora: this.scales(adapters),
    };
    const url = `${link.address.root}/completion`;
    const what = "/completion";
    const answer = await link.http.json({ method: "POST", url, body, signal, what }, chunkSchema);
    const likeliest = answer.completion_probabilities?.[0]?.top_logprobs ?? [];
    if (likeliest.length === 0) return undefined;
    return new Map(likeliest.map(({ id, logprob }) => [String(id), logprob]));
  }

  isForgotten(error: unknown): boolean {
    return reasonOf(error) === "adapter_unknown";
  }
}

function unknownAdapter(name: string): Error {
  return failure(
    "adapter_unknown",
    `llama-server has no adapter with the content of ${name}: start it with --lora and that file`,
    { fields: ["adapters"] },
  );
}

const missingFileSchema = z.object({ code: z.enum(["ENOENT", "EACCES", "ENOTDIR", "EISDIR"]) });

/** Undefined for a file that this machine does not have: the server may run elsewhere. */
async function hashOf(path: string, signal: AbortSignal): Promise<string | undefined> {
  const hash = createHash("sha256");
  try {
    await pipeline(createReadStream(path), hash, { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (missingFileSchema.safeParse(error).success) return undefined;
    throw error;
  }
  return `sha256:${hash.digest("hex")}`;
}
