import { CjmError } from "../errors/index.ts";
import { BODY_LIMITS } from "../protocol/limits.ts";

/**
 * A result as JSON.
 *
 * @throws {CjmError} `CAPABILITY_OUTPUT` for what has no JSON form, `RESPONSE_TOO_LARGE` for what
 * the host would refuse.
 */
export function jsonText(value: unknown): string {
  const text = stringify(value);
  const size = Buffer.byteLength(text);
  if (size <= BODY_LIMITS.bytes) return text;
  throw new CjmError(
    "RESPONSE_TOO_LARGE",
    `a result of ${size} bytes passes the limit of ${BODY_LIMITS.bytes}: return it as a file`,
  );
}

/** One chunk of a stream as its line; the same limits hold for each. */
export function chunkLine(chunk: unknown): string {
  return `${jsonText(chunk)}\n`;
}

function stringify(value: unknown): string {
  try {
    // A handler that returns nothing answers null.
    return JSON.stringify(value ?? null);
  } catch (error) {
    throw new CjmError("CAPABILITY_OUTPUT", "the result has no JSON form", { cause: error });
  }
}
