import type { Engine, ResolvedAdapter, TextInput, TextRequest } from "../engine.ts";
import { refuse } from "../fault.ts";
import { NEUTRAL, PARAMETER_NAMES, type Parameters } from "./parameters.ts";

/** A generation as a caller asked for it. */
export interface Asked extends Parameters {
  readonly context_overflow: "refuse" | "truncate";
}

/**
 * Checks that the engine honours every parameter that was given.
 *
 * @throws {CjmError} `parameter_unsupported`, naming all that it does not
 */
export function checkParameters(engine: Engine, asked: Parameters): void {
  const refused = PARAMETER_NAMES.filter(
    (name) => !engine.parameters.has(name) && !isNeutral(name, asked[name]),
  );
  if (refused.length === 0) return;
  const message = `Engine ${engine.name} does not honour ${refused.join(", ")}`;
  throw refuse("parameter_unsupported", message, {
    fields: refused,
    details: { parameters: refused, engine: engine.name },
  });
}

function isNeutral(name: string, value: unknown): boolean {
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return true;
  return Object.entries(NEUTRAL).some(([known, neutral]) => known === name && neutral === value);
}

/** The request that an engine gets: no adapter names, always a list of stop texts. */
export function toRequest(
  input: TextInput,
  asked: Asked,
  adapters: readonly ResolvedAdapter[],
): TextRequest {
  const { adapters: _, stop = [], context_overflow: overflow, ...parameters } = asked;
  return { input, parameters, stop: typeof stop === "string" ? [stop] : stop, adapters, overflow };
}

/** Runs a generation to its end and gives its result. */
export async function drain<Chunk, Result>(
  chunks: AsyncGenerator<Chunk, Result, void>,
): Promise<Result> {
  for (;;) {
    const { done, value } = await chunks.next();
    if (done === true) return value;
  }
}
