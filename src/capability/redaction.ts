import { CjmError } from "../errors/index.ts";
import { compact } from "../util/compact.ts";
import { isRecord } from "../util/record.ts";

type Redact = (text: string) => string;

/** A JSON value with every text in it redacted, keys included. */
export function redactValue(value: unknown, redact: Redact): unknown {
  if (typeof value === "string") return redact(value);
  if (Array.isArray(value)) return value.map((item) => redactValue(item, redact));
  return isRecord(value) ? redactRecord(value, redact) : value;
}

export function redactRecord(
  record: Readonly<Record<string, unknown>>,
  redact: Redact,
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(record).map(([key, member]) => [redact(key), redactValue(member, redact)]),
  );
}

/** The same failure with every secret taken out of its message, stack, details and causes. */
export function redactError(thrown: unknown, redact: Redact): unknown {
  if (!(thrown instanceof Error)) return redactValue(thrown, redact);
  const cause = thrown.cause === undefined ? undefined : redactError(thrown.cause, redact);
  const redacted =
    thrown instanceof CjmError
      ? new CjmError(
          thrown.code,
          redact(thrown.message),
          compact({
            cause,
            category: thrown.category,
            details: redactRecord(thrown.details, redact),
            fieldsInvalid: thrown.fieldsInvalid,
            retryAfterSeconds: thrown.retryAfterSeconds,
            resourceShortfall: thrown.resourceShortfall,
          }),
        )
      : likeness(thrown, redact, cause);
  if (thrown.stack !== undefined) redacted.stack = redact(thrown.stack);
  return redacted;
}

/** An error of no class of ours keeps the name and the code that it is classified by. */
function likeness(thrown: Error, redact: Redact, cause: unknown): Error {
  const copy = new Error(redact(thrown.message), cause === undefined ? undefined : { cause });
  copy.name = thrown.name;
  return "code" in thrown ? Object.assign(copy, { code: thrown.code }) : copy;
}
