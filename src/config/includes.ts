import { realpath } from "node:fs/promises";
import { dirname, extname, resolve, sep } from "node:path";
import { CjmError } from "../errors/index.ts";
import { isRecord } from "../util/record.ts";
import { parseYaml, readText } from "./yaml-file.ts";

/** Deepest nesting of a document that is searched for markers. */
const MAX_DEPTH = 64;

/**
 * A document with every `{"$include": "<file>#<dotted path>"}` replaced by the content of the file.
 *
 * `.json`, `.yaml` and `.yml` files give their value, `.jsonl` the list of its lines' values, any
 * other file its text; the optional path picks a part of it. Files are relative to the document
 * and must lie in its folder; what is included is not searched again.
 *
 * @throws {CjmError} `FILE_INVALID` naming the marker's file.
 */
export async function resolveIncludes(document: unknown, documentPath: string): Promise<unknown> {
  const folder = await realpath(dirname(documentPath));
  const loaded = new Map<string, Promise<unknown>>();
  const load = (path: string): Promise<unknown> => {
    const known = loaded.get(path) ?? loadInside(folder, path);
    loaded.set(path, known);
    return known;
  };
  return await replace(document, load, 0);
}

async function replace(
  value: unknown,
  load: (path: string) => Promise<unknown>,
  depth: number,
): Promise<unknown> {
  if (depth > MAX_DEPTH) return value;
  if (Array.isArray(value)) {
    return await Promise.all(value.map((item) => replace(item, load, depth + 1)));
  }
  if (!isRecord(value)) return value;
  const marker = value["$include"];
  if (typeof marker === "string" && Object.keys(value).length === 1) {
    const [path = "", ...fragment] = marker.split("#");
    return memberAt(await load(path), fragment.join("#"), marker);
  }
  const members = await Promise.all(
    Object.entries(value).map(async ([key, member]) => [
      key,
      await replace(member, load, depth + 1),
    ]),
  );
  return Object.fromEntries(members);
}

async function loadInside(folder: string, path: string): Promise<unknown> {
  const file = resolve(folder, path);
  const real = await realpath(file).catch((cause: unknown) => {
    throw new CjmError("FILE_INVALID", `${file}: no such file`, { cause });
  });
  if (!real.startsWith(folder + sep)) {
    throw new CjmError("FILE_INVALID", `${path}: an included file must lie in ${folder}`);
  }
  return parseByName(await readText(real), real);
}

function parseByName(text: string, path: string): unknown {
  switch (extname(path)) {
    case ".json":
    case ".yaml":
    case ".yml":
      return parseYaml(text, path).value;
    case ".jsonl":
      return text
        .split("\n")
        .flatMap((line, index) => (line.trim() === "" ? [] : [parseLine(line, path, index + 1)]));
    default:
      return text;
  }
}

function parseLine(line: string, path: string, number: number): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new CjmError("FILE_INVALID", `${path}:${number}: ${message}`, { cause: error });
  }
}

function memberAt(value: unknown, fragment: string, marker: string): unknown {
  let current = value;
  for (const key of fragment === "" ? [] : fragment.split(".")) {
    const holds = (Array.isArray(current) || isRecord(current)) && Object.hasOwn(current, key);
    if (!holds) throw new CjmError("FILE_INVALID", `${marker}: there is no "${key}"`);
    current = Reflect.get(Object(current), key);
  }
  return current;
}
