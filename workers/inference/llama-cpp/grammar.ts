import type { GbnfJsonConstSchema, LlamaGrammar } from "node-llama-cpp";
import type { TextRequest } from "../engine.ts";
import { refuse } from "../fault.ts";
import { isRecord } from "../record.ts";
import type { Native } from "./library.ts";

/** Keywords that the grammar of node-llama-cpp obeys; it would drop any other without a word. */
const OBEYED = new Set([
  "type",
  "enum",
  "const",
  "oneOf",
  "anyOf",
  "properties",
  "additionalProperties",
  "minProperties",
  "maxProperties",
  "items",
  "prefixItems",
  "minItems",
  "maxItems",
  "minLength",
  "maxLength",
  "$ref",
  "$defs",
]);
/** Keywords that hold for every text: notes, and `required`, since all properties are written. */
const HARMLESS = new Set([
  "title",
  "description",
  "$schema",
  "$id",
  "default",
  "examples",
  "required",
]);
const FORMATS = new Set(["date", "time", "date-time"]);
const SCHEMA_MAPS = new Set(["properties", "$defs"]);
const SCHEMA_LISTS = new Set(["oneOf", "anyOf", "prefixItems"]);
const SCHEMAS = new Set(["items", "additionalProperties"]);
const CACHED_MAX = 64;

/** Grammars of recent calls by their source: parsing a large one takes longer than a token. */
export class GrammarBook {
  readonly #grammars = new Map<string, Promise<LlamaGrammar>>();

  /**
   * @returns undefined where the call asks for none
   * @throws {CjmError} `grammar_invalid`, naming the keyword or the parser's complaint
   */
  async of({ llama }: Native, request: TextRequest): Promise<LlamaGrammar | undefined> {
    const { json_schema: schema, grammar } = request.parameters;
    if (schema !== undefined) {
      const known = knownSchema(schema, "json_schema");
      return await this.#cached(JSON.stringify(schema), "json_schema", () =>
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- one of the shapes it takes; knownSchema has refused every other
        llama.createGrammarForJsonSchema(known as GbnfJsonConstSchema),
      );
    }
    if (grammar === undefined) return undefined;
    return await this.#cached(grammar, "grammar", () => llama.createGrammar({ grammar }));
  }

  async #cached(
    source: string,
    field: string,
    make: () => Promise<LlamaGrammar>,
  ): Promise<LlamaGrammar> {
    const key = `${field}:${source}`;
    const made = this.#grammars.get(key) ?? make();
    this.#grammars.delete(key);
    this.#grammars.set(key, made);
    const [oldest] = this.#grammars.keys();
    if (this.#grammars.size > CACHED_MAX && oldest !== undefined) this.#grammars.delete(oldest);
    try {
      return await made;
    } catch (error) {
      this.#grammars.delete(key);
      const why = error instanceof Error ? error.message : String(error);
      throw refuse("grammar_invalid", `${field}: ${why}`, { fields: [field], cause: error });
    }
  }
}

/** The schema with `anyOf` under the name that the library knows; refuses what it would ignore. */
function knownSchema(schema: unknown, path: string): unknown {
  if (!isRecord(schema)) {
    if (typeof schema === "boolean" && path.endsWith(".additionalProperties")) return schema;
    throw refuse("grammar_invalid", `${path} is no schema`, { fields: [path] });
  }
  const known: Record<string, unknown> = {};
  for (const [keyword, value] of Object.entries(schema)) {
    const at = `${path}.${keyword}`;
    checkKeyword(keyword, value, at);
    if (!HARMLESS.has(keyword))
      known[keyword === "anyOf" ? "oneOf" : keyword] = inner(keyword, value, at);
  }
  return known;
}

function inner(keyword: string, value: unknown, at: string): unknown {
  if (SCHEMA_MAPS.has(keyword) && isRecord(value)) {
    const entries = Object.entries(value);
    return Object.fromEntries(
      entries.map(([name, part]) => [name, knownSchema(part, `${at}.${name}`)]),
    );
  }
  if (SCHEMA_LISTS.has(keyword) && Array.isArray(value)) {
    return value.map((part, index) => knownSchema(part, `${at}.${index}`));
  }
  return SCHEMAS.has(keyword) ? knownSchema(value, at) : value;
}

function checkKeyword(keyword: string, value: unknown, at: string): void {
  if (OBEYED.has(keyword) || HARMLESS.has(keyword)) return;
  if (keyword === "format" && typeof value === "string" && FORMATS.has(value)) return;
  throw refuse("grammar_invalid", `${at}: engine llama-cpp cannot keep to this keyword`, {
    fields: [at],
  });
}
