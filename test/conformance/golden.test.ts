import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  BodyScanner,
  dirRefSchema,
  envelopeSchema,
  fileRefSchema,
  jobErrorBodySchema,
  workerFrameSchema,
} from "../../src/protocol/index.ts";
import { compact } from "../../src/util/compact.ts";
import { canonicalJson, hashCanonical } from "../../src/util/canonical-json.ts";

/** Messages that the tests of both SDKs read: `test/fixtures/wire/`. */
function golden<Schema extends z.ZodType>(name: string, schema: Schema): z.output<Schema> {
  const path = new URL(`../fixtures/wire/${name}.json`, import.meta.url);
  return schema.parse(JSON.parse(readFileSync(path, "utf8")));
}

describe("golden frames", () => {
  const { valid, invalid } = golden(
    "frames",
    z.object({
      valid: z.array(z.record(z.string(), z.unknown())),
      invalid: z.array(z.object({ title: z.string(), frame: z.unknown() })),
    }),
  );
  test("are read as they are written", () => {
    for (const frame of valid) expect(workerFrameSchema.parse(frame)).toEqual(frame);
  });
  for (const { title, frame } of invalid) {
    test(`refuse ${title}`, () => {
      expect(workerFrameSchema.safeParse(frame).success).toBe(false);
    });
  }
});

test("golden envelopes mean the same to both SDKs", () => {
  const each = z.object({ title: z.string(), wire: z.unknown(), means: z.unknown() });
  for (const { title, wire, means } of golden("envelopes", z.array(each))) {
    const present = Object.entries(envelopeSchema.parse(wire)).filter(
      ([, value]) => value !== null,
    );
    expect(compact(Object.fromEntries(present)), title).toEqual(means);
  }
});

test("golden failures are read, and what is no failure is refused", () => {
  const shape = z.object({
    valid: z.array(z.record(z.string(), z.unknown())),
    invalid: z.array(z.object({ title: z.string(), body: z.unknown() })),
  });
  const { valid, invalid } = golden("job-errors", shape);
  for (const body of valid) expect(jobErrorBodySchema.parse(body)).toMatchObject(body);
  for (const { title, body } of invalid) {
    expect(jobErrorBodySchema.safeParse(body).success, title).toBe(false);
  }
});

test("golden references are read, and what is none is refused", () => {
  const shape = z.object({ valid: z.array(z.unknown()), invalid: z.array(z.unknown()) });
  const refSchema = fileRefSchema.or(dirRefSchema);
  const { valid, invalid } = golden("refs", shape);
  for (const ref of valid) expect(refSchema.parse(ref)).toEqual(ref);
  for (const ref of invalid) expect(refSchema.safeParse(ref).success).toBe(false);
});

test("golden values have one canonical text", () => {
  const each = z.object({ json: z.string(), canonical: z.string(), sha256: z.string() });
  for (const { json, canonical, sha256 } of golden("canonical", z.array(each))) {
    const value: unknown = JSON.parse(json);
    expect(canonicalJson(value)).toBe(canonical);
    expect(hashCanonical(value)).toBe(sha256);
  }
});

describe("golden bodies", () => {
  const part = z.tuple([z.string(), z.int()]);
  const each = z.object({
    title: z.string(),
    repeat: part,
    then: part,
    end: z.string().default(""),
    fits: z.boolean(),
  });
  for (const { title, repeat, then, end, fits } of golden("bodies", z.array(each))) {
    test(`${fits ? "fit with" : "do not fit with"} ${title}`, () => {
      const text = repeat[0].repeat(repeat[1]) + then[0].repeat(then[1]) + end;
      expect(new BodyScanner().push(Buffer.from(text)) === undefined).toBe(fits);
    });
  }
});
