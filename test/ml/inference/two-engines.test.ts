import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { WorkerLogger } from "cjm-substrate/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import type { ResolvedAdapter } from "../../../workers/inference/engine.ts";
import { convertLora } from "../../../workers/inference/gguf/convert-lora.ts";
import { convertModel } from "../../../workers/inference/gguf/convert-model.ts";
import { readGguf } from "../../../workers/inference/gguf/read.ts";
import { LlamaCppEngine } from "../../../workers/inference/llama-cpp/engine.ts";
import {
  generationSchema,
  scoreOutputSchema,
  type Generation,
  type Message,
  type Score,
} from "../../../workers/inference/task/schemas.ts";
import { temporaryFolder } from "../../support/cli.ts";
import { installEnvironments, INSTALL_MS, runPython, tinyLlm } from "../support/environment.ts";

const NAME = "inference-transformers";
const ANSWERS = fileURLToPath(new URL("transformers_answers.py", import.meta.url));
const THINGS = ["sky", "grass", "snow", "blood", "coal", "lemon"];
const TEXTS = [
  "The sky is blue. What colour is coal? one two three four five six seven eight nine ten",
  'Ça va très bien, 🙂 merci! {"thing": "sky"}',
];
/** How far two engines' log-probabilities may lie apart. */
const CLOSE = 1e-3;
const SILENT: WorkerLogger = {
  debug: () => undefined,
  info: () => undefined,
  warning: () => undefined,
  error: () => undefined,
};

const question = (text: string): readonly Message[] => [{ role: "user", content: text }];
const QUESTIONS = [
  ...THINGS.map((thing) => `What colour is ${thing}?`),
  "Describe coal as JSON.",
  "Greet me.",
  "Count.",
];

/** An adapter of both engines: a PEFT folder, and the GGUF file made of it. */
interface Twin {
  readonly folder: string;
  readonly gguf: ResolvedAdapter;
}

/** Largest distance of two distributions over the whole vocabulary, at any position. */
function distance(a: Score, b: Score): number {
  expect(a.tokens.map(({ token_id }) => token_id)).toEqual(b.tokens.map((t) => t.token_id));
  const distances = a.next.flatMap((likely, place) => {
    const other = new Map(b.next[place]?.map(({ token_id, logprob }) => [token_id, logprob]));
    expect(other.size).toBe(likely.length);
    return likely.map(({ token_id, logprob }) => Math.abs(logprob - (other.get(token_id) ?? NaN)));
  });
  return Math.max(...distances);
}

const tokensOf = ({ logprobs }: Generation): readonly (number | null)[] =>
  (logprobs ?? []).map(({ token_id }) => token_id);

describe("the same weights as safetensors and as F32 GGUF", () => {
  let folder: AsyncDisposable & { readonly path: string };
  let base = "";
  let engine: LlamaCppEngine;
  let adapters: Readonly<Record<"swapped" | "polite", Twin>>;
  let vocabulary = 0;

  async function twin(source: string, name: string, model: string): Promise<Twin> {
    const path = join(folder.path, `${name}.gguf`);
    await convertLora(source, path, await readGguf(model));
    const sha256 = `sha256:${createHash("sha256")
      .update(await readFile(path))
      .digest("hex")}`;
    const known = { base_model: null, rank: null, alpha: null };
    const { size: bytes } = await stat(path);
    return {
      folder: source,
      gguf: { id: name, path, sha256, format: "gguf", bytes, scale: 1, ...known },
    };
  }

  beforeAll(async () => {
    await installEnvironments();
    folder = await temporaryFolder();
    const tiny = await tinyLlm(NAME);
    base = tiny.base;
    const model = join(folder.path, "base.gguf");
    await convertModel(base, model);
    adapters = {
      swapped: await twin(tiny.swapped, "swapped", model),
      polite: await twin(tiny.polite, "polite", model),
    };
    const config = z
      .object({ vocab_size: z.int() })
      .parse(JSON.parse(await readFile(join(base, "config.json"), "utf8")));
    vocabulary = config.vocab_size;
    engine = new LlamaCppEngine(
      {
        modelPath: model,
        modelId: "base",
        gpu: "none",
        gpuLayers: undefined,
        contextSize: 512,
        slots: 1,
        threads: 1,
        adapterSets: 4,
        idleUnloadSeconds: 0,
      },
      { log: SILENT, dataFolder: folder.path },
    );
  }, INSTALL_MS);

  afterAll(async () => {
    await engine.close();
    await folder[Symbol.asyncDispose]();
  });

  async function byTransformers<T>(schema: z.ZodType<T>, calls: readonly object[]): Promise<T[]> {
    const config = { model: base, device: "cpu", threads: 1 };
    const printed = await runPython(NAME, [ANSWERS, JSON.stringify({ config, calls })]);
    return z.array(schema).parse(JSON.parse(printed.trimEnd().split("\n").at(-1) ?? ""));
  }

  async function scoreByLlama(
    prompt: string,
    used: readonly ResolvedAdapter[] = [],
  ): Promise<Score> {
    const signal = new AbortController().signal;
    return await engine.score({ prompt, top: vocabulary, adapters: used }, { signal });
  }

  async function chatByLlama(
    text: string,
    used: readonly ResolvedAdapter[] = [],
  ): Promise<Generation> {
    const request = {
      input: { kind: "chat", messages: question(text) },
      parameters: { temperature: 0, max_tokens: 100, logprobs: 0 },
      stop: [],
      adapters: used,
      overflow: "refuse",
    } as const;
    const deltas = engine.stream(request, { signal: new AbortController().signal });
    for (;;) {
      const { value, done } = await deltas.next();
      if (done === true) return value;
    }
  }

  const chatCall = (text: string, used: readonly object[] = []): object => ({
    action: "chat",
    messages: question(text),
    temperature: 0,
    max_tokens: 100,
    logprobs: 0,
    adapters: used,
  });

  test("gives the same log-probabilities over the whole vocabulary", async () => {
    const calls = TEXTS.map((prompt) => ({ action: "score", prompt, top: vocabulary }));
    const expected = await byTransformers(scoreOutputSchema, calls);
    for (const [place, prompt] of TEXTS.entries()) {
      const found = await scoreByLlama(prompt);
      expect(distance(found, expected[place] ?? found)).toBeLessThan(CLOSE);
    }
  }, 120_000);

  test("gives the same greedy tokens", async () => {
    const expected = await byTransformers(
      generationSchema,
      QUESTIONS.map((text) => chatCall(text)),
    );
    for (const [place, text] of QUESTIONS.entries()) {
      const [found, wanted] = [await chatByLlama(text), expected[place]];
      expect(found.text).toBe(wanted?.text);
      expect(tokensOf(found)).toEqual(wanted && tokensOf(wanted));
      expect(found.finish_reason).toBe(wanted?.finish_reason);
      expect(found.usage.completion_tokens).toBe(wanted?.usage.completion_tokens);
    }
  }, 120_000);

  test("gives the same with adapters, each alone, scaled and together", async () => {
    const { swapped, polite } = adapters;
    const uses: readonly (readonly (readonly [Twin, number])[])[] = [
      [[swapped, 1]],
      [[polite, 1]],
      [[polite, 0.5]],
      [
        [swapped, 0.75],
        [polite, -0.25],
      ],
    ];
    const [prompt = ""] = TEXTS;
    const peft = uses.map((use) => use.map(([one, scale]) => ({ path: one.folder, scale })));
    const scored = await byTransformers(
      scoreOutputSchema,
      peft.map((used) => ({ action: "score", prompt, top: vocabulary, adapters: used })),
    );
    const asked = "What colour is snow?";
    const answered = await byTransformers(
      generationSchema,
      peft.map((used) => chatCall(asked, used)),
    );
    const bare = await scoreByLlama(prompt);
    for (const [place, use] of uses.entries()) {
      const used = use.map(([{ gguf }, scale]) => ({ ...gguf, scale }));
      const found = await scoreByLlama(prompt, used);
      expect(distance(found, scored[place] ?? found)).toBeLessThan(CLOSE);
      expect(distance(found, bare)).toBeGreaterThan(0.1);
      expect((await chatByLlama(asked, used)).text).toBe(answered[place]?.text);
    }
    expect(answered.map(({ text }) => text).slice(0, 2)).toEqual([
      "The snow is red.",
      "white, merci beaucoup!",
    ]);
    expect(distance(await scoreByLlama(prompt), bare)).toBe(0);
  }, 180_000);
});
