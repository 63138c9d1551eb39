import { alternatives, isPathPlace, memberOf, propertyOf } from "../protocol/index.ts";
import { isRecord } from "../util/record.ts";
import { isRef, parseRef } from "./refs.ts";
import type { OutputRef } from "./types.ts";

/** The schemas that say which texts of a composition file are paths. */
export interface PathSchemas {
  /** Of an instance's configuration. */
  config(instance: string): unknown;
  /** Of what a node, as it is written, passes to its action. */
  kwargs(node: Readonly<Record<string, unknown>>): unknown;
}

/** A composition file whose paths are absolute. */
export interface PlacedDocument {
  readonly document: unknown;
  /** Inputs that are paths: their values are relative to where they were given. */
  readonly pathInputs: ReadonlySet<string>;
}

/**
 * Makes every path of a composition file absolute: what stands, itself, by `$item` or as the default
 * of an input, where the schema of a configuration or an action says `cjm-file` or `cjm-dir`.
 *
 * @param document the content of a file that `parseCompositionFile` takes
 */
export function placePaths(
  document: unknown,
  schemas: PathSchemas,
  absolute: (path: string) => string,
): PlacedDocument {
  if (!isRecord(document)) return { document, pathInputs: new Set() };
  const pathInputs = new Set<string>();
  const mark = (marker: OutputRef): void => {
    const target = parseRef(marker);
    if (target?.kind === "input" && target.path.length === 0) pathInputs.add(target.name);
  };
  const instances = members(document["instances"], (id, instance) => {
    if (!isRecord(instance)) return instance;
    const see = { text: absolute, marker: mark };
    return { ...instance, config: placed(instance["config"], schemas.config(id), see) };
  });
  const place = (node: unknown): unknown => placeNode(node, { schemas, absolute, mark });
  const nodes = Array.isArray(document["nodes"])
    ? document["nodes"].map(place)
    : members(document["nodes"], (_, node) => place(node));
  const inputs = members(document["inputs"], (name, input) => {
    if (!pathInputs.has(name) || !isRecord(input)) return input;
    const { default: value } = input;
    return typeof value === "string" ? { ...input, default: absolute(value) } : input;
  });
  return { document: { ...document, instances, nodes, inputs }, pathInputs };
}

function placeNode(
  node: unknown,
  how: {
    readonly schemas: PathSchemas;
    readonly absolute: (path: string) => string;
    readonly mark: (marker: OutputRef) => void;
  },
): unknown {
  if (!isRecord(node)) return node;
  const fields: (readonly string[])[] = [];
  const marker = (found: OutputRef): void => {
    const target = parseRef(found);
    if (target?.kind === "item") fields.push(target.path);
    else how.mark(found);
  };
  const see = { text: how.absolute, marker };
  const kwargs = placed(node["kwargs"], how.schemas.kwargs(node), see);
  const { for_each: list } = node;
  if (!Array.isArray(list) || fields.length === 0) return { ...node, kwargs };
  const items = list.map((item: unknown) =>
    fields.reduce((value, field) => placedAt(value, field, how.absolute), item),
  );
  return { ...node, kwargs, for_each: items };
}

interface Seen {
  text(path: string): string;
  marker(marker: OutputRef): void;
}

/** The value with every text at the place of a path replaced; the markers there are told. */
function placed(value: unknown, schema: unknown, see: Seen): unknown {
  const options = alternatives(schema);
  if (isRef(value)) {
    if (isPathPlace(options)) see.marker(value);
    return value;
  }
  if (typeof value === "string") return isPathPlace(options) ? see.text(value) : value;
  if (Array.isArray(value)) {
    return value.map((member) => placed(member, memberOf(options, "items"), see));
  }
  return members(value, (key, member) => placed(member, propertyOf(options, key), see));
}

function placedAt(
  value: unknown,
  [field, ...rest]: readonly string[],
  absolute: (path: string) => string,
): unknown {
  if (field === undefined) return typeof value === "string" ? absolute(value) : value;
  return members(value, (key, member) =>
    key === field ? placedAt(member, rest, absolute) : member,
  );
}

/** A record with every member replaced; anything else as it is. */
function members(value: unknown, replace: (key: string, member: unknown) => unknown): unknown {
  if (!isRecord(value) || isRef(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [key, replace(key, member)]),
  );
}
