import type { z } from "zod";
import { CjmError, type ErrorCode } from "../errors/index.ts";
import { compact } from "../util/compact.ts";
import { isRecord } from "../util/record.ts";
import { closest } from "../util/suggest.ts";

/** One thing that is wrong in a file, a flag or an environment variable. */
export interface FileProblem {
  /** The file's path, `--flag` or `$VARIABLE`. */
  readonly source: string;
  /** Counted from 1; absent where the source has no lines. */
  readonly line?: number;
  readonly column?: number;
  /** Dotted path of the key; empty for the file as a whole. */
  readonly key: string;
  readonly message: string;
}

/** Where in its source a path of keys is. */
export type Locate = (
  path: readonly PropertyKey[],
) => { readonly line: number; readonly column: number } | undefined;

export function describeProblem(problem: FileProblem): string {
  const place = problem.line === undefined ? "" : `:${problem.line}:${problem.column ?? 1}`;
  const key = problem.key === "" ? "" : `${problem.key}: `;
  return `${problem.source}${place}: ${key}${problem.message}`;
}

/** One error that names every problem, a line each. */
export function problemsError(code: ErrorCode, problems: readonly FileProblem[]): CjmError {
  return new CjmError(code, problems.map(describeProblem).join("\n"), {
    details: { problems },
    fieldsInvalid: problems.map(({ key }) => key).filter((key) => key !== ""),
  });
}

/** `a.b[0].c` */
export function dottedPath(path: readonly PropertyKey[]): string {
  return path
    .map((part, index) => {
      if (typeof part === "number") return `[${part}]`;
      return index === 0 ? String(part) : `.${String(part)}`;
    })
    .join("");
}

/** The problems a schema found in a value, an unknown key each with the key that was likely meant. */
export function problemsOf(
  error: z.ZodError,
  { source, schema, locate }: { source: string; schema?: z.ZodType; locate?: Locate },
): FileProblem[] {
  return error.issues.flatMap((issue) => {
    if (issue.code !== "unrecognized_keys") {
      return [problemAt(source, issue.path, plainMessage(issue), locate)];
    }
    const known = schema === undefined ? [] : knownKeysAt(schema, issue.path);
    return issue.keys.map((key) => {
      const meant = closest(key, known);
      const message = meant === undefined ? "unknown key" : `unknown key; did you mean "${meant}"?`;
      return problemAt(source, [...issue.path, key], message, locate);
    });
  });
}

function problemAt(
  source: string,
  path: readonly PropertyKey[],
  message: string,
  locate: Locate | undefined,
): FileProblem {
  const place = locate?.(path);
  return compact({
    source,
    line: place?.line,
    column: place?.column,
    key: dottedPath(path),
    message,
  });
}

function plainMessage(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_union") {
    const branch = issue.errors.find((issues) => issues.some(({ path }) => path.length > 0));
    const inner = branch?.[0];
    if (inner !== undefined) return `${dottedPath(inner.path)}: ${inner.message}`;
  }
  return issue.message.replace(/^Invalid (?:input|option): /u, "");
}

/** The keys of the object schema that stands at `path`, seen through defaults and optionals. */
function knownKeysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let current: unknown = schema;
  for (const part of path) {
    const shape = shapeOf(current);
    if (shape === undefined) return [];
    current = shape[String(part)];
  }
  return Object.keys(shapeOf(current) ?? {});
}

function shapeOf(schema: unknown): Record<string, unknown> | undefined {
  let current = schema;
  while (isRecord(current) && isRecord(current["def"])) {
    if (isRecord(current["shape"])) return current["shape"];
    current = current["def"]["innerType"] ?? current["def"]["element"];
  }
  return undefined;
}
