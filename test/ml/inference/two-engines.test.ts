import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { WorkerLogger } from "cjm-substrate/worker";
import {
  getLlama,
  LlamaLogLevel,
  type Llama,
  type LlamaContextOptions,
  type LlamaModel,
} from "node-llama-cpp";
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
/**
 * Attention and its cache in F32: by default llama.cpp rounds them to F16, which moves
 * log-probabilities by up to a hundredth.
 */
const EXACT = {
  flashAttention: false,
  // oxlint-disable-next-line typescript/no-deprecated -- marked so to keep users from choosing it
  experimentalKvCacheKeyType: "F32",
  // oxlint-disable-next-line typescript/no-deprecated -- the same
  experimentalKvCacheValueType: "F32",
} as const satisfies LlamaContextOptions;
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

const chatCall = (text: string, used: readonly object[] = []): object => ({
  action: "chat",
  messages: question(text),
  temperature: 0,
  max_tokens: 100,
  logprobs: 0,
  adapters: used,
});

const ASKED = "What colour is snow?";
type Name = "swapped" | "polite";
/** Adapters and their scales, as calls apply them. */
const USES: readonly (readonly (readonly [Name, number])[])[] = [
  [["swapped", 1]],
  [["polite", 1]],
  [["polite", 0.5]],
  [
    ["swapped", 0.75],
    ["polite", -0.25],
  ],
];

interface Answers {
  readonly scores: readonly Next[];
  readonly adapted: readonly Next[];
  readonly chats: readonly Generation[];
  readonly adaptedChats: readonly Generation[];
}

/** An adapter of both engines: a PEFT folder, and the GGUF file made of it. */
interface Twin {
  readonly folder: string;
  readonly gguf: ResolvedAdapter;
}

const EMPTY = { tokens: [], next: [] };

/** Probabilities of what follows each token of a text. */
interface Next {
  readonly tokens: readonly number[];
  readonly next: readonly ReadonlyMap<number, number>[];
}

/** The same as the other engine tells it. */
function nextOf({ tokens, next }: Score): Next {
  return {
    tokens: tokens.map(({ token_id }) => token_id),
    next: next.map((row) => new Map(row.map((t) => [t.token_id, Math.exp(t.logprob)]))),
  };
}

/** Largest difference of a log-probability over the whole vocabulary, at any position. */
function distance(a: Next, b: Next): number {
  expect(a.tokens).toEqual(b.tokens);
  const distances = a.next.flatMap((row, place) => {
    const other = b.next[place];
    expect(other?.size).toBe(row.size);
    return [...row].map(([token, chance]) =>
      Math.abs(Math.log(chance) - Math.log(other?.get(token) ?? NaN)),
    );
  });
  return Math.max(...distances);
}

const tokensOf = ({ logprobs }: Generation): readonly (number | null)[] =>
  (logprobs ?? []).map(({ token_id }) => token_id);

describe("the same weights as safetensors and as F32 GGUF", () => {
  let folder: AsyncDisposable & { readonly path: string };
  let base = "";
  let engine: LlamaCppEngine;
  let llama: Llama;
  let model: LlamaModel;
  let adapters: Readonly<Record<Name, Twin>>;
  let answers: Answers;
  let vocabulary = 0;

  async function twin(source: string, name: string, header: string): Promise<Twin> {
    const path = join(folder.path, `${name}.gguf`);
    await convertLora(source, path, await readGguf(header));
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
    const gguf = join(folder.path, "base.gguf");
    await convertModel(base, gguf);
    adapters = {
      swapped: await twin(tiny.swapped, "swapped", gguf),
      polite: await twin(tiny.polite, "polite", gguf),
    };
    const config = z
      .object({ vocab_size: z.int() })
      .parse(JSON.parse(await readFile(join(base, "config.json"), "utf8")));
    vocabulary = config.vocab_size;
    answers = await askTransformers();
    llama = await getLlama({
      gpu: false,
      build: "never",
      maxThreads: 0,
      logLevel: LlamaLogLevel.error,
    });
    model = await llama.loadModel({ modelPath: gguf });
    engine = new LlamaCppEngine(
      {
        modelPath: gguf,
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
    await llama.dispose();
    await folder[Symbol.asyncDispose]();
  });

  /** All that the other engine is asked, in one process: starting it takes longest. */
  async function askTransformers(): Promise<Answers> {
    const used = USES.map((use) =>
      use.map(([name, scale]) => ({ path: adapters[name].folder, scale })),
    );
    const score = { action: "score", prompt: TEXTS[0], top: vocabulary };
    const calls = [
      ...TEXTS.map((prompt) => ({ ...score, prompt })),
      ...used.map((uses) => ({ ...score, adapters: uses })),
      ...QUESTIONS.map((text) => chatCall(text)),
      ...used.map((uses) => chatCall(ASKED, uses)),
    ];
    const config = { model: base, device: "cpu", threads: 1 };
    const printed = await runPython(NAME, [ANSWERS, JSON.stringify({ config, calls })]);
    const given = z
      .array(z.unknown())
      .parse(JSON.parse(printed.trimEnd().split("\n").at(-1) ?? ""));
    const scores = z
      .array(scoreOutputSchema)
      .parse(given.splice(0, TEXTS.length + USES.length))
      .map(nextOf);
    const chats = z.array(generationSchema).parse(given);
    return {
      scores: scores.slice(0, TEXTS.length),
      adapted: scores.slice(TEXTS.length),
      chats: chats.slice(0, QUESTIONS.length),
      adaptedChats: chats.slice(QUESTIONS.length),
    };
  }

  /** llama.cpp's distribution after each token. */
  async function scoreByLlama(
    prompt: string,
    used: readonly ResolvedAdapter[] = [],
  ): Promise<Next> {
    const adapters = used.map(({ path: filePath, scale }) => ({ filePath, scale }));
    const context = await model.createContext({
      contextSize: 512,
      threads: 1,
      ...EXACT,
      ...(adapters.length === 0 ? {} : { lora: { adapters } }),
    });
    try {
      const options = { generateNext: { probabilities: true, options: { temperature: 0 } } };
      const tokens = model.tokenize(prompt);
      const sequence = context.getSequence();
      const given = await sequence.controlledEvaluate(tokens.map((token) => [token, options]));
      return {
        tokens,
        next: given.map((output) => output?.next.probabilities ?? new Map<number, number>()),
      };
    } finally {
      await context.dispose();
    }
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

  test("gives the same log-probabilities over the whole vocabulary", async () => {
    for (const [place, prompt] of TEXTS.entries()) {
      const found = await scoreByLlama(prompt);
      expect(found.next[0]?.size).toBe(vocabulary);
      expect(distance(found, answers.scores[place] ?? EMPTY)).toBeLessThan(CLOSE);
    }
  }, 120_000);

  test("gives the same greedy tokens", async () => {
    for (const [place, text] of QUESTIONS.entries()) {
      const [found, wanted] = [await chatByLlama(text), answers.chats[place]];
      expect(found.text).toBe(wanted?.text);
      expect(tokensOf(found)).toEqual(wanted && tokensOf(wanted));
      expect(found.finish_reason).toBe(wanted?.finish_reason);
      expect(found.usage.completion_tokens).toBe(wanted?.usage.completion_tokens);
    }
  }, 120_000);

  test("gives the same with adapters, each alone, scaled and together", async () => {
    const [prompt = ""] = TEXTS;
    const bare = await scoreByLlama(prompt);
    for (const [place, use] of USES.entries()) {
      const used = use.map(([name, scale]) => ({ ...adapters[name].gguf, scale }));
      const found = await scoreByLlama(prompt, used);
      expect(distance(found, answers.adapted[place] ?? EMPTY)).toBeLessThan(CLOSE);
      expect(distance(found, bare)).toBeGreaterThan(0.1);
      expect((await chatByLlama(ASKED, used)).text).toBe(answers.adaptedChats[place]?.text);
    }
    expect(answers.adaptedChats.map(({ text }) => text).slice(0, 2)).toEqual([
      "The snow is red.",
      "white, merci beaucoup!",
    ]);
    expect(distance(await scoreByLlama(prompt), bare)).toBe(0);
  }, 180_000);
});
