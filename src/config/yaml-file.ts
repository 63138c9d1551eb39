import { readFile, stat } from "node:fs/promises";
import {
  isCollection,
  isMap,
  isPair,
  isScalar,
  LineCounter,
  parseDocument,
  type Document,
} from "yaml";
import type { z } from "zod";
import { CjmError } from "../errors/index.ts";
import { compact } from "../util/compact.ts";
import { problemsError, problemsOf, type FileProblem, type Locate } from "./file-problem.ts";

/** Larger than any file a person writes; keeps a wrong path from filling the memory. */
const MAX_FILE_BYTES = 4 * 1024 * 1024;
/** Times an alias may be used; beyond it a file of a few lines could grow without end. */
const MAX_ALIASES = 100;

/** A YAML file as data, with a way back from a path of keys to the line that holds it. */
export interface YamlSource {
  readonly path: string;
  readonly value: unknown;
  readonly locate: Locate;
}

/**
 * Reads a YAML (or JSON) file.
 *
 * @throws {CjmError} `FILE_INVALID` naming the file and, for bad syntax, every line that is wrong.
 */
export async function readYaml(path: string): Promise<YamlSource> {
  return parseYaml(await readText(path), path);
}

/** @throws {CjmError} `FILE_INVALID` naming every problem with file, line, column and key. */
export function checkYaml<Schema extends z.ZodType>(
  source: YamlSource,
  schema: Schema,
): z.output<Schema> {
  const parsed = schema.safeParse(source.value ?? {});
  if (parsed.success) return parsed.data;
  throw problemsError(
    "FILE_INVALID",
    problemsOf(parsed.error, { source: source.path, schema, locate: source.locate }),
  );
}

/** @throws {CjmError} `FILE_INVALID` for bad syntax; `path` is only for messages. */
export function parseYaml(text: string, path: string): YamlSource {
  const lines = new LineCounter();
  try {
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
    if (document.errors.length > 0) {
      throw problemsError(
        "FILE_INVALID",
        document.errors.map((error) => syntaxProblem(path, error, lines)),
      );
    }
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
    return { path, value, locate: (keys) => locate(document, keys, lines) };
  } catch (error) {
    if (error instanceof CjmError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new CjmError("FILE_INVALID", `${path}: ${message}`, { cause: error });
  }
}

/** @throws {CjmError} `FILE_INVALID` for a file that cannot be read or is over 4 MiB. */
export async function readText(path: string): Promise<string> {
  try {
    const found = await stat(path);
    // A pipe or a device has no size and may have no end.
    if (!found.isFile()) throw new CjmError("FILE_INVALID", `${path}: not a regular file`);
    const { size } = found;
    if (size > MAX_FILE_BYTES) {
      throw new CjmError(
        "FILE_INVALID",
        `${path}: ${size} bytes; the limit is ${MAX_FILE_BYTES} bytes`,
      );
    }
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof CjmError) throw error;
    const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
    const reason = missing ? "no such file" : String(error);
    throw new CjmError("FILE_INVALID", `${path}: ${reason}`, { cause: error });
  }
}

function syntaxProblem(
  path: string,
  error: { readonly message: string; readonly pos: readonly [number, number] },
  lines: LineCounter,
): FileProblem {
  const { line, col } = lines.linePos(error.pos[0]);
  return compact({ source: path, line, column: col, key: "", message: error.message });
}

/** The place of the key itself; for a key that is missing, the place of what should hold it. */
function locate(
  document: Document.Parsed,
  path: readonly PropertyKey[],
  lines: LineCounter,
): { line: number; column: number } | undefined {
  let node: unknown = document.contents;
  let offset = offsetOf(node);
  for (const part of path) {
    const next = childOf(node, part);
    if (next === undefined) break;
    offset = offsetOf(next.key) ?? offsetOf(next.value) ?? offset;
    node = next.value;
  }
  if (offset === undefined) return undefined;
  const { line, col } = lines.linePos(offset);
  return { line, column: col };
}

function childOf(node: unknown, part: PropertyKey): { key: unknown; value: unknown } | undefined {
  if (!isCollection(node)) return undefined;
  if (!isMap(node)) {
    const value: unknown = typeof part === "number" ? node.items[part] : undefined;
    return value === undefined ? undefined : { key: value, value };
  }
  const pair = node.items.find(
    (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(part),
  );
  return pair === undefined ? undefined : { key: pair.key, value: pair.value };
}

function offsetOf(node: unknown): number | undefined {
  return (isScalar(node) || isCollection(node)) && node.range ? node.range[0] : undefined;
}
