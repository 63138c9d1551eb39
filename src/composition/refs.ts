import { isRecord } from "../util/record.ts";
import type { OutputRef } from "./types.ts";

/** What a marker points at. */
export type RefTarget =
  | { readonly kind: "node"; readonly node: string; readonly path: readonly string[] }
  | { readonly kind: "item"; readonly path: readonly string[] }
  | { readonly kind: "index" }
  | { readonly kind: "input"; readonly name: string; readonly path: readonly string[] };

/** A marker and where it stands. */
export interface FoundRef {
  readonly marker: OutputRef;
  readonly path: readonly (string | number)[];
}

/** Deepest nesting of kwargs, as for any body on the wire. */
export const MAX_DEPTH = 64;

/**
 * A marker for the result of `node`, or for the part of it at a dotted path.
 *
 * @example `ref("write", "text")`, `ref("search", "hits.0.title")`, `ref("check", { optional: true })`
 */
export function ref(node: string, field?: string | RefOptions, options?: RefOptions): OutputRef {
  const path = typeof field === "string" ? `.${field}` : "";
  const { optional = false } = (typeof field === "object" ? field : options) ?? {};
  return optional ? { $ref: `${node}${path}`, optional } : { $ref: `${node}${path}` };
}

export interface RefOptions {
  /** Bind null where a `when` skipped the source. @default false */
  readonly optional?: boolean;
}

/** A marker for the current item of a `for_each` node, or for a part of it. */
export function item(field?: string): OutputRef {
  return { $ref: field === undefined ? "$item" : `$item.${field}` };
}

/** A marker for the position of the current item, counted from 0. */
export function itemIndex(): OutputRef {
  return { $ref: "$index" };
}

/** A marker for a declared input of the composition, or for a part of it. */
export function input(name: string, field?: string): OutputRef {
  return { $ref: field === undefined ? `$input.${name}` : `$input.${name}.${field}` };
}

/** True where a value is a marker; a JSON Schema's local pointer is not one. */
export function isRef(value: unknown): value is OutputRef {
  if (!isRecord(value)) return false;
  const text = value["$ref"];
  return typeof text === "string" && !text.startsWith("#");
}

/** What a marker points at, or undefined where its text has no meaning. */
export function parseRef({ $ref: text }: OutputRef): RefTarget | undefined {
  const [head = "", ...path] = text.split(".");
  if (head === "" || path.includes("")) return undefined;
  if (head === "$item") return { kind: "item", path };
  if (head === "$index") return path.length === 0 ? { kind: "index" } : undefined;
  if (head === "$input") {
    const [name, ...rest] = path;
    return name === undefined ? undefined : { kind: "input", name, path: rest };
  }
  return /^[A-Za-z0-9_-]+$/u.test(head) ? { kind: "node", node: head, path } : undefined;
}

/** Every marker inside a value, literals left out. */
export function findRefs(value: unknown, path: readonly (string | number)[] = []): FoundRef[] {
  const found: FoundRef[] = [];
  collectRefs(value, [...path], found);
  return found;
}

/** `path` is one list for the whole walk: most values hold no marker, and none of them needs a copy. */
function collectRefs(value: unknown, path: (string | number)[], found: FoundRef[]): void {
  if (typeof value !== "object" || value === null || path.length > MAX_DEPTH) return;
  if (isRef(value)) {
    found.push({ marker: value, path: [...path] });
  } else if (Array.isArray(value) || !isLiteral(value)) {
    const isArray = Array.isArray(value);
    for (const [key, member] of Object.entries(value)) {
      path.push(isArray ? Number(key) : key);
      collectRefs(member, path, found);
      path.pop();
    }
  }
}

/** What a marker is replaced by. */
export type Resolve = (marker: OutputRef, path: readonly (string | number)[]) => unknown;

/** The value with every marker replaced by what `resolve` gives for it, and literals unwrapped. */
export function replaceRefs(
  value: unknown,
  resolve: Resolve,
  path: readonly (string | number)[] = [],
): unknown {
  return transform(value, { resolve, unwrap: (literal) => literal.$literal }, path);
}

/** As {@link replaceRefs}, but literals stay wrapped: the answer may hold markers still. */
export function rewriteRefs(value: unknown, resolve: Resolve): unknown {
  return transform(value, { resolve, unwrap: (literal) => literal }, []);
}

function transform(
  value: unknown,
  how: { readonly resolve: Resolve; readonly unwrap: (literal: Literal) => unknown },
  path: readonly (string | number)[],
): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (isRef(value)) return how.resolve(value, path);
  if (Array.isArray(value)) {
    return value.map((member, index) => transform(member, how, [...path, index]));
  }
  if (isLiteral(value)) return how.unwrap(value);
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [key, transform(member, how, [...path, key])]),
  );
}

/** Content that is data whatever it looks like. */
export interface Literal {
  readonly $literal: unknown;
}

/** True for `{"$literal": …}`. */
export function isLiteral(value: object): value is Literal {
  return "$literal" in value && Object.keys(value).length === 1;
}
