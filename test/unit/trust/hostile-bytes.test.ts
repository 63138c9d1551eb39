import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeLossless } from "../../../src/util/lines.ts";
import { readJson } from "../../../src/process/response-reader.ts";
import {
  endlessBody,
  mutatedBodies,
  mutatedFrames,
  newTally,
  randomOutput,
  READ_AT_MOST,
  recordedBodies,
} from "../../chaos/hostile/in-process.ts";

const SEED = 20_260;

describe("a worker's answer", () => {
  test("that is hostile is a value or a typed error, and changes nothing else", async () => {
    const tally = newTally();
    await recordedBodies(tally);
    await mutatedBodies(tally, SEED, 15_000);
    expect(tally.faults).toEqual([]);
    expect(tally.values).toBeGreaterThan(1_000);
    expect(tally.errors["RESPONSE_INVALID"]).toBeGreaterThan(1_000);
    expect(tally.errors["RESPONSE_TOO_LARGE"]).toBeGreaterThan(3);
  });

  test("that never ends is left at the limit, whatever it is made of", async () => {
    for (const text of ["x", '"', "[", "[0,", " ", '{"a":', "9".repeat(4_096)]) {
      const { code, bytes } = await endlessBody(Buffer.from(text.repeat(16)));
      expect(code, text.slice(0, 9)).toBe("RESPONSE_TOO_LARGE");
      expect(bytes).toBeLessThanOrEqual(READ_AT_MOST);
    }
  });

  test("means the same however it is cut into pieces", async () => {
    const json = fc.json({ maxDepth: 8 });
    await fc.assert(
      fc.asyncProperty(
        json,
        fc.infiniteStream(fc.integer({ min: 1, max: 9 })),
        async (text, cuts) => {
          const bytes = Buffer.from(text);
          async function* pieces(): AsyncGenerator<Uint8Array> {
            for (let at = 0; at < bytes.length;) {
              const next: unknown = cuts.next().value;
              const end = at + Number(next);
              yield bytes.subarray(at, end);
              at = end;
            }
          }
          expect(await readJson(pieces())).toEqual(JSON.parse(text));
        },
      ),
      { numRuns: 300, seed: SEED },
    );
  });

  test("that is not UTF-8 is refused, never altered", async () => {
    async function* body(): AsyncGenerator<Uint8Array> {
      yield Buffer.from([0x22, 0x61, 0xff, 0x22]);
    }
    await expect(readJson(body())).rejects.toMatchObject({
      code: "RESPONSE_INVALID",
      message: "The answer is not UTF-8",
    });
  });
});

test("frames that are hostile are noted or taken, and none speaks for the host", () => {
  const tally = newTally();
  mutatedFrames(tally, SEED, 15_000);
  expect(tally.faults).toEqual([]);
  expect(tally.frames).toBeGreaterThan(1_000);
  expect(tally.notes).toBeGreaterThan(1_000);
});

describe("a worker's output", () => {
  test("of random bytes is lines of text", async () => {
    const tally = newTally();
    await randomOutput(tally, SEED, 1_000_000);
    expect(tally.faults).toEqual([]);
    expect(tally.lines).toBeGreaterThan(1_000);
  });

  test("keeps what is UTF-8 and shows every other byte", () => {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const part = fc.oneof(
      fc.uint8Array({ maxLength: 6 }),
      fc.string({ unit: "binary", maxLength: 4 }).map((text) => Buffer.from(text)),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
        const bytes = Buffer.concat(parts);
        const text = decodeLossless(bytes);
        const isValid = ((): boolean => {
          try {
            decoder.decode(bytes);
            return true;
          } catch {
            return false;
          }
        })();
        expect(text.includes("\uFFFD")).toBe(bytes.toString("utf8").includes("\uFFFD") && isValid);
        if (isValid) expect(text).toBe(decoder.decode(bytes));
        expect(unescaped(text)).toEqual(isValid ? unescaped(decoder.decode(bytes)) : [...bytes]);
      }),
      { numRuns: 2_000, seed: SEED },
    );
  });
});

/** The bytes that a decoded line stands for, where no text of its own looks like an escape. */
function unescaped(text: string): number[] {
  const parts = text.split(/(?<escape>\\x[0-9a-f]{2})/u);
  return parts.flatMap((part) =>
    /^\\x[0-9a-f]{2}$/u.test(part) ? [Number.parseInt(part.slice(2), 16)] : [...Buffer.from(part)],
  );
}
