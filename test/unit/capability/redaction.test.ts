import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { redactError, redactRecord } from "../../../src/capability/redaction.ts";
import { CjmError, toJobError } from "../../../src/errors/index.ts";
import { createRedactor } from "../../../src/store/index.ts";

const secret = fc
  .string({ minLength: 8, maxLength: 40, unit: "grapheme" })
  .filter((text) => text.trim().length >= 8);
const around = fc.string({ maxLength: 30 });

describe("the redactor", () => {
  test("leaves nothing of a secret in any text that holds it, however it is encoded", () => {
    fc.assert(
      fc.property(secret, around, around, (value, before, after) => {
        const redact = createRedactor([value]);
        const plain = `${before}${value}${after}`;
        for (const text of [
          plain,
          JSON.stringify({ plain }),
          `?key=${encodeURIComponent(value)}&`,
        ]) {
          expect(redact(text)).toContain("[redacted]");
        }
        expect(redact(plain)).not.toContain(value);
      }),
      { numRuns: 200 },
    );
  });

  test("finds a secret inside anything encoded as Base64, at each of the three offsets", () => {
    fc.assert(
      fc.property(secret, around, around, (value, before, after) => {
        const redact = createRedactor([value]);
        const bytes = Buffer.from(`${before}${value}${after}`);
        expect(redact(bytes.toString("base64"))).toContain("[redacted]");
        expect(redact(bytes.toString("base64url"))).toContain("[redacted]");
      }),
      { numRuns: 200 },
    );
  });
});

describe("a redacted error", () => {
  const redact = createRedactor(["hunter2-hunter2"]);

  test("keeps its code and category and loses the secret in message, stack, details and causes", () => {
    const error = new CjmError("CAPABILITY_INPUT", "no hunter2-hunter2", {
      cause: new TypeError("because of hunter2-hunter2"),
      category: "fatal",
      fieldsInvalid: ["key"],
      details: { jobError: { message: "hunter2-hunter2" } },
    });
    const redacted = redactError(error, redact);
    expect(redacted).toMatchObject({
      code: "CAPABILITY_INPUT",
      category: "fatal",
      fieldsInvalid: ["key"],
    });
    expect(JSON.stringify([toJobError(redacted), redacted])).not.toContain("hunter2");
    expect(toJobError(redacted).message).toBe("no [redacted]");
  });

  test("of the system is classified as before", () => {
    const error = Object.assign(new Error("hunter2-hunter2 is not there"), { code: "ENOENT" });
    expect(toJobError(redactError(error, redact))).toMatchObject({
      code: "CAPABILITY_INPUT",
      message: "[redacted] is not there",
    });
  });
});

test("a redacted record has neither values nor keys with a secret", () => {
  const redact = createRedactor(["hunter2-hunter2"]);
  const record = { "hunter2-hunter2": [{ deep: "a hunter2-hunter2" }], n: 1, none: null };
  expect(redactRecord(record, redact)).toEqual({
    "[redacted]": [{ deep: "a [redacted]" }],
    n: 1,
    none: null,
  });
});
