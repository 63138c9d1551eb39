import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
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
import { cacheDirForConfig } from "../../src/worker/cache-paths.ts";
import { dirRef, fileRef } from "../../src/worker/file-ref.ts";

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
    start: part,
    more: part,
    end: z.string().default(""),
    fits: z.boolean(),
  });
  for (const { title, start, more, end, fits } of golden("bodies", z.array(each))) {
    test(`${fits ? "fit with" : "do not fit with"} ${title}`, () => {
      const text = start[0].repeat(start[1]) + more[0].repeat(more[1]) + end;
      expect(new BodyScanner().push(Buffer.from(text)) === undefined).toBe(fits);
    });
  }
});

describe("golden content", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "cjm-golden-"));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  function write(path: string, content: string): string {
    const whole = join(folder, path);
    mkdirSync(dirname(whole), { recursive: true });
    writeFileSync(whole, content);
    return whole;
  }

  test("has one hash as a file and as a folder", async () => {
    const file = z.object({ content: z.string(), size: z.int(), sha256: z.string() });
    const entry = z.object({ name: z.string(), size: z.int(), sha256: z.string() });
    const tree = z.object({
      contents: z.record(z.string(), z.string()),
      files: z.array(entry),
      sha256: z.string(),
    });
    const shape = z.object({ files: z.array(file), folders: z.array(tree) });
    const { files, folders } = golden("refs", shape);
    for (const { content, ...expected } of files) {
      expect((await fileRef(write("one.txt", content))).data).toMatchObject(expected);
    }
    for (const [index, { contents, ...expected }] of folders.entries()) {
      for (const [name, content] of Object.entries(contents)) write(`d${index}/${name}`, content);
      expect((await dirRef(join(folder, `d${index}`))).data).toMatchObject(expected);
    }
  });

  test("has one cache folder per input, action and config", async () => {
    const keyed = z.object({
      action: z.string(),
      config: z.record(z.string(), z.unknown()),
      folder: z.string(),
    });
    const shape = z.object({
      identifiers: z.array(keyed.extend({ input: z.string() })),
      files: z.array(keyed.extend({ name: z.string(), content: z.string() })),
    });
    const { identifiers, files } = golden("cache-paths", shape);
    for (const { input, action, config, folder: expected } of identifiers) {
      const subject = { dataFolder: "/data", inputPath: input, action };
      const options = { create: false, hashInputContent: false };
      expect(await cacheDirForConfig(subject, config, options), input).toBe(expected);
    }
    for (const { name, content, action, config, folder: expected } of files) {
      const subject = { dataFolder: "/data", inputPath: write(name, content), action };
      const options = { create: false, skipInputCache: true };
      expect(await cacheDirForConfig(subject, config, options), name).toBe(expected);
    }
  });
});
