import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z, type CjmError } from "cjm-substrate/worker";
import { errnoOf, refuse } from "../fault.ts";
import { bool, list, text, u32, type GgufValue } from "./format.ts";

/** Token types of `tokenizer.ggml.token_type`. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;
const BYTE = 6;

const nodeSchema = z.looseObject({
  type: z.string(),
  add_prefix_space: z.boolean().optional(),
  use_regex: z.boolean().optional(),
  individual_digits: z.boolean().optional(),
  pattern: z.looseObject({ Regex: z.string().optional() }).optional(),
});
const sequenceSchema = z.looseObject({
  type: z.string(),
  pretokenizers: z.array(nodeSchema).optional(),
  normalizers: z.array(nodeSchema).optional(),
});
const tokenizerSchema = z.looseObject({
  added_tokens: z
    .array(z.looseObject({ id: z.int(), content: z.string(), special: z.boolean() }))
    .default([]),
  normalizer: nodeSchema.and(sequenceSchema).nullish(),
  pre_tokenizer: nodeSchema.and(sequenceSchema).nullish(),
  post_processor: z.unknown().optional(),
  model: z.looseObject({
    type: z.string().optional(),
    vocab: z.record(z.string(), z.int().nonnegative()),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])).default([]),
    byte_fallback: z.boolean().nullish(),
    ignore_merges: z.boolean().nullish(),
    unk_token: z.string().nullish(),
  }),
});
type TokenizerFile = z.output<typeof tokenizerSchema>;
type Node = z.output<typeof nodeSchema>;

const settingsSchema = z.looseObject({
  add_bos_token: z.boolean().nullish(),
  add_eos_token: z.boolean().nullish(),
  chat_template: z
    .union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))])
    .nullish(),
});

export interface TokenIds {
  readonly vocabSize: number;
  readonly bos: number | undefined;
  readonly eos: readonly number[];
  readonly pad: number | undefined;
}

/** Names that llama.cpp gives to the splitting rules of published tokenizers. */
const SPLITS: ReadonlyMap<string, string> = new Map([
  [
    String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    "llama-bpe",
  ],
  [
    String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    "qwen2",
  ],
]);

/**
 * The tokenizer of a Hugging Face folder as GGUF metadata: byte-level BPE (GPT-2, Llama 3 and Qwen 2
 * rules) and BPE with byte fallback (Llama 2).
 *
 * @throws {CjmError} `model_unsupported` for a tokenizer that llama.cpp would read differently
 */
export async function tokenizerMetadata(
  folder: string,
  ids: TokenIds,
): Promise<readonly (readonly [string, GgufValue])[]> {
  const path = join(folder, "tokenizer.json");
  const file = await readJson(path, tokenizerSchema);
  const type = file.model.type ?? "BPE";
  if (type !== "BPE") throw foreign(path, `a ${type} model`);
  const settings = await readSettings(folder);
  const tokens = vocabulary(path, file, ids.vocabSize);
  const kind =
    file.model.byte_fallback === true ? fallbackKind(file, tokens) : byteLevel(path, file);
  return [
    ...kind,
    ["tokenizer.ggml.tokens", list("string", tokens.texts)],
    ["tokenizer.ggml.token_type", list("int32", tokens.types)],
    ...special(ids),
    ["tokenizer.ggml.add_bos_token", bool(settings.add_bos_token ?? addsBos(file, ids, tokens))],
    ["tokenizer.ggml.add_eos_token", bool(settings.add_eos_token ?? false)],
    ...(await chatTemplate(folder, settings.chat_template)),
  ];
}

interface Vocabulary {
  readonly texts: string[];
  readonly types: number[];
}

function vocabulary(path: string, file: TokenizerFile, size: number): Vocabulary {
  const texts = Array.from({ length: size }, (_, id) => `[PAD${id}]`);
  const types = Array.from({ length: size }, () => UNUSED);
  const isFallback = file.model.byte_fallback === true;
  const put = (id: number, content: string, type: number): void => {
    if (id >= size) throw foreign(path, `token ${id}, and the model has ${size}`);
    texts[id] = content;
    types[id] = type;
  };
  for (const [content, id] of Object.entries(file.model.vocab)) {
    const isByte = isFallback && /^<0x[0-9A-F]{2}>$/u.test(content);
    put(id, content, isByte ? BYTE : NORMAL);
  }
  for (const { id, content, special } of file.added_tokens) {
    put(id, content, special ? CONTROL : USER_DEFINED);
  }
  const unknown = file.model.vocab[file.model.unk_token ?? ""];
  if (isFallback && unknown !== undefined) types[unknown] = UNKNOWN;
  return { texts, types };
}

function byteLevel(path: string, file: TokenizerFile): (readonly [string, GgufValue])[] {
  checkNormalizer(path, file);
  const pre = splitName(path, file);
  if (pre === "llama-bpe" && file.model.ignore_merges !== true) {
    throw foreign(path, "Llama 3's splitting without ignore_merges");
  }
  return [
    ["tokenizer.ggml.model", text("gpt2")],
    ["tokenizer.ggml.pre", text(pre)],
    ["tokenizer.ggml.merges", list("string", file.model.merges.map(joined))],
  ];
}

const joined = (merge: string | readonly [string, string]): string =>
  typeof merge === "string" ? merge : merge.join(" ");

/** llama.cpp normalises nothing; NFC leaves nearly every text as it is. */
function checkNormalizer(path: string, { normalizer }: TokenizerFile): void {
  if (normalizer === null || normalizer === undefined || normalizer.type === "NFC") return;
  throw foreign(path, `the normalizer ${normalizer.type}`);
}

function splitName(path: string, { pre_tokenizer: node }: TokenizerFile): string {
  const isSequence = node?.type === "Sequence";
  const steps: readonly Node[] = isSequence
    ? (node.pretokenizers ?? [])
    : [node ?? { type: "none" }];
  const last = steps.at(-1);
  if (last?.type !== "ByteLevel") throw foreign(path, "no byte-level pre-tokenizer");
  if (last.add_prefix_space === true) throw foreign(path, "a space added before the text");
  const name = ruleName(steps.slice(0, -1), last.use_regex !== false);
  if (name !== undefined) return name;
  throw foreign(path, `the splitting rule ${JSON.stringify(steps)}`);
}

/** @param isSplitting whether the byte-level step splits by GPT-2's rule itself */
function ruleName(before: readonly Node[], isSplitting: boolean): string | undefined {
  const [first, ...more] = before;
  if (more.length > 0) return undefined;
  if (first === undefined) return isSplitting ? "gpt-2" : undefined;
  if (first.type === "Split" && !isSplitting) return SPLITS.get(first.pattern?.Regex ?? "");
  const isDigits = first.type === "Digits" && first.individual_digits === true;
  return isDigits && isSplitting ? "smollm" : undefined;
}

/**
 * BPE with byte fallback is what llama.cpp calls SPM: it joins the pair of the highest score, so the
 * rank of the merge that makes a token becomes its score.
 */
function fallbackKind(
  file: TokenizerFile,
  { texts }: Vocabulary,
): (readonly [string, GgufValue])[] {
  const ranks = new Map<string, number>();
  for (const [rank, merge] of file.model.merges.entries()) {
    const made = joined(merge).replace(" ", "");
    if (!ranks.has(made)) ranks.set(made, rank);
  }
  const scores = texts.map((content) => -(ranks.get(content) ?? -1) - 1);
  const steps = file.normalizer?.normalizers ?? [];
  const isPrefixed =
    steps.some((step) => step.type === "Prepend") || file.pre_tokenizer?.type === "Metaspace";
  return [
    ["tokenizer.ggml.model", text("llama")],
    ["tokenizer.ggml.pre", text("default")],
    ["tokenizer.ggml.scores", list("float32", scores)],
    ["tokenizer.ggml.add_space_prefix", bool(isPrefixed)],
  ];
}

function special({ bos, eos, pad }: TokenIds): (readonly [string, GgufValue])[] {
  const entries: (readonly [string, GgufValue])[] = [];
  if (bos !== undefined) entries.push(["tokenizer.ggml.bos_token_id", u32(bos)]);
  const [end, turn] = eos;
  if (end !== undefined) entries.push(["tokenizer.ggml.eos_token_id", u32(end)]);
  if (turn !== undefined) entries.push(["tokenizer.ggml.eot_token_id", u32(turn)]);
  if (pad !== undefined) entries.push(["tokenizer.ggml.padding_token_id", u32(pad)]);
  return entries;
}

/** A template that begins with the beginning-of-text token adds it to every text. */
function addsBos(file: TokenizerFile, { bos }: TokenIds, { texts }: Vocabulary): boolean {
  if (bos === undefined) return false;
  const wanted = JSON.stringify({ SpecialToken: { id: texts[bos], type_id: 0 } });
  return JSON.stringify(file.post_processor ?? null).includes(`"single":[${wanted}`);
}

async function chatTemplate(
  folder: string,
  given: z.output<typeof settingsSchema>["chat_template"],
): Promise<(readonly [string, GgufValue])[]> {
  const named =
    typeof given === "string" ? given : given?.find(({ name }) => name === "default")?.template;
  const template = named ?? (await readOptional(join(folder, "chat_template.jinja")));
  return template === undefined ? [] : [["tokenizer.chat_template", text(template)]];
}

async function readSettings(folder: string): Promise<z.output<typeof settingsSchema>> {
  const content = await readOptional(join(folder, "tokenizer_config.json"));
  return settingsSchema.parse(content === undefined ? {} : JSON.parse(content));
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** @throws {CjmError} `model_missing`, `model_invalid` */
export async function readJson<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
): Promise<z.output<Schema>> {
  try {
    return schema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (error) {
    if (errnoOf(error) !== "") {
      throw refuse("model_missing", `${path} cannot be read: ${errnoOf(error)}`, { cause: error });
    }
    throw refuse(
      "model_invalid",
      `${path} cannot be understood: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

function foreign(path: string, what: string): CjmError {
  return refuse("model_unsupported", `${path} has ${what}, which cannot be converted`);
}
