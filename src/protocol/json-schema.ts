import { canonicalJson } from "../util/canonical-json.ts";
import { isRecord } from "../util/record.ts";

/** One thing that is wrong with a value. */
export interface SchemaProblem {
  /** Dotted path of the value, such as `options.list[3].name`; empty for the whole value. */
  readonly path: string;
  readonly message: string;
  /** An object's member that the schema does not know; its name ends `path`. */
  readonly unknownKey?: boolean;
}

type Schema = Readonly<Record<string, unknown>>;

interface Check {
  readonly root: unknown;
  readonly problems: SchemaProblem[];
  readonly depth: number;
}

/** Deeper than any body may be; ends a schema that refers to itself without consuming anything. */
const MAX_DEPTH = 256;
const MAX_PROBLEMS = 100;

/**
 * Everything that is wrong with `value` by a JSON Schema (draft 2020-12), at most 100 problems.
 *
 * Covers what zod and the Python SDK write: types, enums, constants, limits, patterns, arrays,
 * tuples, objects, `anyOf`, `oneOf`, `allOf`, `not` and local `$ref`s. `format` is an annotation,
 * as the draft says. Keywords it does not know are ignored.
 */
export function validateJsonSchema(schema: unknown, value: unknown): readonly SchemaProblem[] {
  const check: Check = { root: schema, problems: [], depth: 0 };
  validate(schema, value, "", check);
  return check.problems.slice(0, MAX_PROBLEMS);
}

function validate(schema: unknown, value: unknown, path: string, check: Check): void {
  if (schema === true || check.problems.length >= MAX_PROBLEMS) return;
  if (schema === false) return report(check, path, "nothing is allowed here");
  if (!isRecord(schema)) return;
  if (check.depth > MAX_DEPTH) return report(check, path, "nested too deeply");
  const inner: Check = { ...check, depth: check.depth + 1 };

  checkReference(schema, value, path, inner);
  if (!checkType(schema, value, path, inner)) return;
  checkEnum(schema, value, path, inner);
  checkByType(schema, value, path, inner);
  checkCombined(schema, value, path, inner);
}

function checkReference(schema: Schema, value: unknown, path: string, check: Check): void {
  const reference = schema["$ref"];
  if (typeof reference !== "string") return;
  const target = resolveReference(reference, check.root);
  if (target === undefined) report(check, path, `the schema's ${reference} leads nowhere`);
  else validate(target, value, path, check);
}

function checkByType(schema: Schema, value: unknown, path: string, check: Check): void {
  if (typeof value === "number") checkNumber(schema, value, path, check);
  if (typeof value === "string") checkString(schema, value, path, check);
  if (Array.isArray(value)) checkArray(schema, value, path, check);
  if (isRecord(value)) checkObject(schema, value, path, check);
}

function report(check: Check, path: string, message: string): void {
  check.problems.push({ path, message });
}

function resolveReference(reference: string, root: unknown): unknown {
  if (!reference.startsWith("#")) return undefined;
  let current: unknown = root;
  for (const part of reference.slice(1).split("/").slice(1)) {
    const key = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
    if (!isRecord(current) || !Object.hasOwn(current, key)) return undefined;
    current = current[key];
  }
  return current;
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value === "number" && Number.isInteger(value) ? "integer" : typeof value;
}

function checkType(schema: Schema, value: unknown, path: string, check: Check): boolean {
  const declared = schema["type"];
  if (declared === undefined) return true;
  const allowed = (Array.isArray(declared) ? declared : [declared]).map(String);
  const actual = typeOf(value);
  if (allowed.includes(actual) || (actual === "integer" && allowed.includes("number"))) return true;
  const received = value === undefined ? "nothing" : actual;
  report(check, path, `expected ${allowed.join(" or ")}, received ${received}`);
  return false;
}

function checkEnum(schema: Schema, value: unknown, path: string, check: Check): void {
  const options = schema["enum"];
  if (Array.isArray(options) && !options.some((option) => deepEqual(option, value))) {
    report(check, path, `expected one of ${options.map((o) => JSON.stringify(o)).join(", ")}`);
  }
  if ("const" in schema && !deepEqual(schema["const"], value)) {
    report(check, path, `expected ${JSON.stringify(schema["const"])}`);
  }
}

function checkNumber(schema: Schema, value: number, path: string, check: Check): void {
  const limits: readonly (readonly [string, (limit: number) => boolean, string])[] = [
    ["minimum", (limit) => value >= limit, "at least"],
    ["maximum", (limit) => value <= limit, "at most"],
    ["exclusiveMinimum", (limit) => value > limit, "more than"],
    ["exclusiveMaximum", (limit) => value < limit, "less than"],
    ["multipleOf", (limit) => isMultiple(value, limit), "a multiple of"],
  ];
  for (const [keyword, holds, words] of limits) {
    const limit = schema[keyword];
    if (typeof limit === "number" && !holds(limit)) {
      report(check, path, `expected ${words} ${limit}, received ${value}`);
    }
  }
}

/** A quotient within rounding of a whole number counts: 0.3 is a multiple of 0.1. */
function isMultiple(value: number, step: number): boolean {
  const quotient = value / step;
  return Math.abs(quotient - Math.round(quotient)) <= 1e-9 * Math.max(1, Math.abs(quotient));
}

function checkString(schema: Schema, value: string, path: string, check: Check): void {
  checkSize(
    schema,
    { size: Array.from(value).length, noun: "characters", suffix: "Length" },
    path,
    check,
  );
  const pattern = schema["pattern"];
  if (typeof pattern === "string" && !patternOf(pattern).test(value)) {
    report(check, path, `does not match ${pattern}`);
  }
}

const patterns = new Map<string, RegExp>();

/** Patterns come from manifests, a fixed and small number; one that is no pattern matches nothing. */
function patternOf(source: string): RegExp {
  let pattern = patterns.get(source);
  if (pattern === undefined) {
    try {
      pattern = new RegExp(source, "u");
    } catch {
      pattern = /(?!)/u;
    }
    if (patterns.size < 10_000) patterns.set(source, pattern);
  }
  return pattern;
}

function checkSize(
  schema: Schema,
  { size, noun, suffix }: { size: number; noun: string; suffix: string },
  path: string,
  check: Check,
): void {
  const min = schema[`min${suffix}`];
  const max = schema[`max${suffix}`];
  if (typeof min === "number" && size < min) {
    report(check, path, `expected at least ${min} ${noun}, received ${size}`);
  }
  if (typeof max === "number" && size > max) {
    report(check, path, `expected at most ${max} ${noun}, received ${size}`);
  }
}

function checkArray(schema: Schema, value: readonly unknown[], path: string, check: Check): void {
  checkSize(schema, { size: value.length, noun: "items", suffix: "Items" }, path, check);
  const prefix: readonly unknown[] = Array.isArray(schema["prefixItems"])
    ? schema["prefixItems"]
    : [];
  for (const [index, item] of value.entries()) {
    const itemSchema = index < prefix.length ? prefix[index] : schema["items"];
    if (itemSchema !== undefined) validate(itemSchema, item, `${path}[${index}]`, check);
  }
  if (schema["uniqueItems"] === true && hasDuplicates(value)) {
    report(check, path, "expected no item twice");
  }
}

function hasDuplicates(items: readonly unknown[]): boolean {
  return new Set(items.map(canonicalJson)).size < items.length;
}

function checkObject(
  schema: Schema,
  value: Readonly<Record<string, unknown>>,
  path: string,
  check: Check,
): void {
  checkSize(
    schema,
    { size: Object.keys(value).length, noun: "members", suffix: "Properties" },
    path,
    check,
  );
  const required: readonly unknown[] = Array.isArray(schema["required"]) ? schema["required"] : [];
  for (const name of required) {
    if (typeof name === "string" && value[name] === undefined) {
      report(check, join(path, name), "required");
    }
  }
  for (const [name, member] of Object.entries(value)) {
    if (member !== undefined) checkMember(schema, [name, member], path, check);
  }
}

function checkMember(
  schema: Schema,
  [name, member]: readonly [string, unknown],
  path: string,
  check: Check,
): void {
  const properties = isRecord(schema["properties"]) ? schema["properties"] : {};
  const at = join(path, name);
  if (schema["propertyNames"] !== undefined) validate(schema["propertyNames"], name, at, check);
  let known = Object.hasOwn(properties, name);
  if (known) validate(properties[name], member, at, check);
  const byPattern = isRecord(schema["patternProperties"]) ? schema["patternProperties"] : {};
  for (const [pattern, memberSchema] of Object.entries(byPattern)) {
    if (!patternOf(pattern).test(name)) continue;
    known = true;
    validate(memberSchema, member, at, check);
  }
  if (known) return;
  if (schema["additionalProperties"] === false) {
    check.problems.push({ path: at, message: "unknown key", unknownKey: true });
  } else if (schema["additionalProperties"] !== undefined) {
    validate(schema["additionalProperties"], member, at, check);
  }
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function checkCombined(schema: Schema, value: unknown, path: string, check: Check): void {
  if (Array.isArray(schema["allOf"])) {
    for (const part of schema["allOf"]) validate(part, value, path, check);
  }
  if (Array.isArray(schema["anyOf"])) checkAlternatives(schema["anyOf"], value, path, check);
  if (Array.isArray(schema["oneOf"])) {
    const matches = checkAlternatives(schema["oneOf"], value, path, check);
    if (matches > 1) report(check, path, "fits more than one alternative");
  }
  if (schema["not"] !== undefined && attempt(schema["not"], value, path, check).length === 0) {
    report(check, path, "is not allowed");
  }
}

function attempt(schema: unknown, value: unknown, path: string, check: Check): SchemaProblem[] {
  const problems: SchemaProblem[] = [];
  validate(schema, value, path, { ...check, problems });
  return problems;
}

/** Reports the problems of the alternative that came nearest: the one that failed deepest, then least. */
function checkAlternatives(
  alternatives: readonly unknown[],
  value: unknown,
  path: string,
  check: Check,
): number {
  const attempts = alternatives.map((schema) => attempt(schema, value, path, check));
  const matches = attempts.filter((problems) => problems.length === 0).length;
  if (matches > 0) return matches;
  const atRoot = (problems: readonly SchemaProblem[]): number =>
    problems.filter((problem) => problem.path === path).length;
  const [nearest = []] = attempts.toSorted(
    (a, b) => atRoot(a) - atRoot(b) || discriminant(a) - discriminant(b) || a.length - b.length,
  );
  if (atRoot(nearest) === 0) check.problems.push(...nearest);
  else report(check, path, alternativesMessage(attempts, path));
  return 0;
}

/** A wrong constant or enum says "not this alternative" rather than "a wrong value". */
function discriminant(problems: readonly SchemaProblem[]): number {
  return problems.filter(({ message }) => /^expected (?:"|one of)/u.test(message)).length;
}

function alternativesMessage(attempts: readonly SchemaProblem[][], path: string): string {
  const messages = attempts.flatMap((problems) =>
    problems.filter((problem) => problem.path === path).map(({ message }) => message),
  );
  return [...new Set(messages)].join("; or ");
}

function deepEqual(a: unknown, b: unknown): boolean {
  if (Object.is(a, b) || (a === 0 && b === 0)) return true;
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((item, index) => deepEqual(item, b[index]));
  }
  if (!isRecord(a) || !isRecord(b)) return false;
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && deepEqual(a[key], b[key]))
  );
}
