/**
 * What the engine `llama-cpp` adds to bare node-llama-cpp, in the same run on the same context size
 * and thread count: tokens per second of one stream, time to the first token, and 32 streams at once.
 * Then how soon an aborted stream's slot is free, and under the real host how soon the crash of the
 * worker is the typed error of the stream that it ends.
 *
 * Run by hand: `npm run bench -- inference [--model FILE] [--rounds N] [--tokens N] [--crashes N]`. Without a model
 * it makes one of random weights (16 million parameters).
 */
import "../test/support/resolve-source.ts";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { getLlama, LlamaLogLevel, type LlamaContextSequence } from "node-llama-cpp";
import type { TextRequest } from "../workers/inference/engine.ts";

const { LlamaCppEngine } = await import("../workers/inference/llama-cpp/engine.ts");
const { beginStream, openInferenceHost } = await import("../test/support/inference-host.ts");
const { writeTinyModel } = await import("../test/integration/inference/tiny-model.ts");

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    rounds: { type: "string", default: "15" },
    tokens: { type: "string", default: "128" },
    threads: { type: "string" },
    crashes: { type: "string", default: "5" },
  },
});
const ROUNDS = Number(values.rounds);
const TOKENS = Number(values.tokens);
const PROMPT = "hello world, this is a text that goes on and on";
const folder = mkdtempSync(join(tmpdir(), "cjm-bench-inference-"));
const large =
  values.model ?? (await writeTinyModel(join(folder, "large"), { hidden: 768, layers: 8 }));
// What is added before the first token does not depend on the model; the less it computes, the
// clearer it shows.
const small = await writeTinyModel(join(folder, "small"));

const log = { debug: noop, info: noop, warning: console.error, error: console.error };
type Engine = InstanceType<typeof LlamaCppEngine>;
const { signal } = new AbortController();

interface Measured {
  readonly tokensPerSecond: number;
  readonly firstMs: number;
}

function request(prompt: string, seed: number): TextRequest {
  const parameters = { temperature: 1, seed, max_tokens: TOKENS };
  return {
    input: { kind: "prompt", prompt },
    parameters,
    stop: [],
    adapters: [],
    overflow: "refuse",
  };
}

interface Streamed extends Measured {
  readonly tokens: number;
  /** The deltas are the text, and the tokens are as many as were asked for. */
  readonly isWhole: boolean;
}

async function ours(engine: Engine, prompt: string, seed: number): Promise<Streamed> {
  const started = performance.now();
  let first = 0;
  let text = "";
  const stream = engine.stream(request(prompt, seed), { signal });
  for (;;) {
    const { done, value } = await stream.next();
    first ||= performance.now();
    if (done === true) {
      const { completion_tokens: tokens } = value.usage;
      const isWhole = value.text === text && (tokens === TOKENS || value.finish_reason === "stop");
      return { ...measured({ started, first, tokens }), tokens, isWhole };
    }
    text += value.text;
  }
}

/** Log-probability of the likeliest first token. */
async function likeliest(engine: Engine, prompt: string): Promise<number> {
  const asked = request(prompt, 1);
  const parameters = { ...asked.parameters, max_tokens: 1, logprobs: 1 };
  const stream = engine.stream({ ...asked, parameters }, { signal });
  for (;;) {
    const { done, value } = await stream.next();
    if (done === true) return value.logprobs?.[0]?.top[0]?.logprob ?? Number.NaN;
  }
}

async function bare(
  sequence: LlamaContextSequence,
  prompt: string,
  seed: number,
): Promise<Measured> {
  const { model } = sequence;
  const started = performance.now();
  await sequence.clearHistory();
  const bos = model.tokens.bos;
  const prefix = model.tokens.shouldPrependBosToken && bos !== null ? [bos] : [];
  const tokens = [...prefix, ...model.tokenize(prompt)];
  let first = 0;
  let count = 0;
  let text = "";
  const options = { temperature: 1, topK: 0, topP: 1, minP: 0, seed, yieldEogToken: true };
  for await (const token of sequence.evaluate(tokens, options)) {
    text += model.detokenize([token]);
    first ||= performance.now();
    count += 1;
    if (count >= TOKENS || model.isEogToken(token)) break;
  }
  if (text === "") console.error("the bare engine generated no text");
  return measured({ started, first, tokens: count });
}

function measured(run: { started: number; first: number; tokens: number }): Measured {
  const seconds = (performance.now() - run.first) / 1000;
  return { tokensPerSecond: (run.tokens - 1) / seconds, firstMs: run.first - run.started };
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

function quantile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

/** Milliseconds from the abort of a running stream to its slot's being free. */
async function abortMs(engine: Engine): Promise<number> {
  const leaving = new AbortController();
  const stream = engine.stream(request(PROMPT, 1), { signal: leaving.signal });
  await stream.next();
  const started = performance.now();
  leaving.abort();
  await stream.next().catch(noop);
  while (engine.status().active > 0) await new Promise(setImmediate);
  return performance.now() - started;
}

/** Milliseconds from the crash of a worker in the middle of a stream to the stream's error. */
async function crashMs(rounds: number): Promise<number[]> {
  await using host = await openInferenceHost(async (folder) => {
    const model = await writeTinyModel(folder, { context: 16_384 });
    const config = { model, gpu: "none", threads: 1, slots: 1, context_size: 16_384 };
    return [{ name: "inference", instanceId: "writer", config }];
  });
  const kwargs = { prompt: PROMPT, max_tokens: 16_000, grammar: "root ::= [a-z ] root" };
  const all: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const stream = await beginStream(host, "writer", kwargs);
    const ended = stream.handle.ended().then(() => performance.now());
    const drained = stream.drain().catch((error: unknown) => error);
    const killed = performance.now();
    process.kill(host.pipeline.manager.instance("writer").pid ?? process.pid, "SIGSEGV");
    all.push((await ended) - killed);
    const { code } = (await drained) as { code?: string };
    if (code !== "WORKER_EXITED") throw new Error(`the stream ended with ${String(code)}`);
  }
  return all;
}

function noop(): void {
  // The engine's debug lines are no part of a benchmark.
}

async function openEngine(modelPath: string): Promise<Engine> {
  const engine = new LlamaCppEngine(
    {
      modelPath,
      modelId: "bench",
      gpu: "none",
      gpuLayers: undefined,
      contextSize: 512,
      slots: 32,
      threads: values.threads === undefined ? undefined : Number(values.threads),
      adapterSets: 1,
      idleUnloadSeconds: 0,
    },
    { log, dataFolder: join(folder, "data") },
  );
  await engine.prefetch({ signal, progress: noop });
  return engine;
}

interface Pair {
  readonly ours: Measured;
  readonly bare: Measured;
}

/** The same generations by both, turn by turn, with as many threads. */
async function compare(engine: Engine, modelPath: string, rounds: number): Promise<Pair[]> {
  const threads = engine.profiles.all().at(-1)?.threads ?? 1;
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({ sequences: 1, contextSize: 512, threads });
  const sequence = context.getSequence();
  const pairs: Pair[] = [];
  for (let round = -2; round < rounds; round += 1) {
    // A prompt of its own per round, so that nothing is reused; the order changes with each round.
    const prompt = `${round + 2} ${PROMPT}`;
    const seed = round + 3;
    const bareFirst = round % 2 === 0 ? await bare(sequence, prompt, seed) : undefined;
    const own = await ours(engine, prompt, seed);
    const pair = { ours: own, bare: bareFirst ?? (await bare(sequence, prompt, seed)) };
    if (round >= 0) pairs.push(pair);
  }
  await model.dispose();
  return pairs;
}

const llama = await getLlama({
  gpu: false,
  build: "never",
  maxThreads: 0,
  logLevel: LlamaLogLevel.error,
});
const engine = await openEngine(large);
const pairs = await compare(engine, large, ROUNDS);
const quick = await openEngine(small);
const firsts = await compare(quick, small, ROUNDS * 10);
await quick.close();

/** A stream that got another's tokens has another first distribution; floats differ by the batch. */
const SAME_LOGPROB = 0.02;
const prompts = Array.from({ length: 32 }, (_, i) => `${i} ${PROMPT}`);
const alone: number[] = [];
for (const prompt of prompts) alone.push(await likeliest(engine, prompt));
const beside = await Promise.all(prompts.map((prompt) => likeliest(engine, prompt)));
const started = performance.now();
const together = await Promise.all(prompts.map((prompt, i) => ours(engine, prompt, i)));
const seconds = (performance.now() - started) / 1000;
const generated = together.reduce((sum, { tokens }) => sum + tokens, 0);
const mixed = prompts.filter((_, i) => {
  const change = Math.abs((alone[i] ?? Number.NaN) - (beside[i] ?? Number.NaN));
  return !(change < SAME_LOGPROB) || together[i]?.isWhole !== true;
}).length;

const aborts: number[] = [];
for (let round = 0; round < ROUNDS * 4; round += 1) aborts.push(await abortMs(engine));
const crashes = await crashMs(Number(values.crashes));

const rows = {
  threads: engine.profiles.all()[0]?.threads,
  tokens: TOKENS,
  rounds: ROUNDS,
  bare_tokens_per_second: median(pairs.map((pair) => pair.bare.tokensPerSecond)),
  ours_tokens_per_second: median(pairs.map((pair) => pair.ours.tokensPerSecond)),
  ratio_p50: median(pairs.map((pair) => pair.ours.tokensPerSecond / pair.bare.tokensPerSecond)),
  added_first_token_ms_p50: median(firsts.map((pair) => pair.ours.firstMs - pair.bare.firstMs)),
  streams: 32,
  streams_with_lost_or_mixed_tokens: mixed,
  streams_tokens_per_second: generated / seconds,
  abort_to_free_slot_ms_p50: quantile(aborts, 0.5),
  abort_to_free_slot_ms_p95: quantile(aborts, 0.95),
  crash_to_typed_error_ms_p50: quantile(crashes, 0.5),
  crash_to_typed_error_ms_max: Math.max(...crashes),
};
console.log(JSON.stringify(rows, null, 2));
const out = process.env["CJM_BENCH_OUT"];
if (out !== undefined) writeFileSync(out, JSON.stringify(rows));
await engine.close();
await llama.dispose();
rmSync(folder, { recursive: true, force: true });
const isGood = rows.ratio_p50 >= 0.95 && rows.added_first_token_ms_p50 <= 2 && mixed === 0;
if (!isGood) process.exitCode = 1;
