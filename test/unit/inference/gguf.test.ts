import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fromFloat16, toFloat16 } from "../../../workers/inference/gguf/float16.ts";
import {
  bool,
  f32,
  list,
  text,
  u32,
  type GgufValue,
} from "../../../workers/inference/gguf/format.ts";
import { permuteHeads } from "../../../workers/inference/gguf/permute.ts";
import { readGguf } from "../../../workers/inference/gguf/read.ts";
import { writeGguf } from "../../../workers/inference/gguf/write.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "cjm-gguf-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const METADATA = new Map<string, GgufValue>([
  ["general.architecture", text("llama")],
  ["a.count", u32(7)],
  ["a.ratio", f32(0.5)],
  ["a.yes", bool(true)],
  ["a.big", { type: "uint64", value: 2n ** 40n }],
  ["a.words", list("string", ["", "héllo", "x".repeat(300)])],
  ["a.numbers", list("int32", [-1, 0, 5])],
]);
const tensor = (name: string, dimensions: number[], values: number[]) => ({
  name,
  dimensions,
  type: "F32" as const,
  values: () => Float32Array.from(values),
});

async function written(name: string): Promise<string> {
  const path = join(folder, name);
  const tensors = [tensor("one.weight", [3, 1], [1, 2, 3]), tensor("two.weight", [2], [4, 5])];
  await writeGguf(path, { metadata: METADATA, tensors });
  return path;
}

describe("a GGUF file", () => {
  test("reads back as it was written, its data aligned", async () => {
    const path = await written("a.gguf");
    const { metadata, tensors, fileBytes } = await readGguf(path);
    expect([...metadata]).toEqual([...METADATA]);
    expect(tensors.map(({ name, dimensions, type }) => ({ name, dimensions, type }))).toEqual([
      { name: "one.weight", dimensions: [3, 1], type: "F32" },
      { name: "two.weight", dimensions: [2], type: "F32" },
    ]);
    const bytes = readFileSync(path);
    expect(bytes.byteLength).toBe(fileBytes);
    for (const { start } of tensors) expect(start % 32).toBe(0);
    expect(bytes.readFloatLE((tensors[1]?.start ?? 0) + 4)).toBe(5);
  });

  test("cut anywhere is refused", async () => {
    const whole = readFileSync(await written("b.gguf"));
    const path = join(folder, "cut.gguf");
    for (const length of [0, 3, 8, 20, 100, 300, whole.byteLength - 33]) {
      writeFileSync(path, whole.subarray(0, length));
      await expect(readGguf(path)).rejects.toMatchObject({ code: "CAPABILITY_INPUT" });
    }
  });

  test("of any bytes is read or refused, never worse", async () => {
    const whole = readFileSync(await written("c.gguf"));
    const path = join(folder, "fuzz.gguf");
    const change = fc.record({ at: fc.nat(400), byte: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 6 }), async (changes) => {
        const bytes = Buffer.from(whole);
        for (const { at, byte } of changes) bytes[at] = byte;
        writeFileSync(path, bytes);
        try {
          await readGguf(path);
        } catch (error) {
          expect(error).toMatchObject({ code: "CAPABILITY_INPUT" });
        }
      }),
      { numRuns: 200 },
    );
  });

  test("that cannot be completed is not there", async () => {
    const path = join(folder, "none.gguf");
    const failing = { ...tensor("x", [2], []), values: () => Promise.reject(new Error("gone")) };
    await expect(writeGguf(path, { metadata: METADATA, tensors: [failing] })).rejects.toThrow(
      "gone",
    );
    await expect(readGguf(path)).rejects.toMatchObject({ code: "CAPABILITY_INPUT" });
    await expect(readGguf(`${path}.partial`)).rejects.toMatchObject({ code: "CAPABILITY_INPUT" });
  });
});

describe("half precision", () => {
  test("keeps every half exactly", () => {
    const halves = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const values = new Float32Array(65_536);
    fromFloat16(halves, values);
    const back = toFloat16(values);
    for (let i = 0; i < halves.length; i += 1) {
      const isNaNHalf = (i & 0x7c00) === 0x7c00 && (i & 0x3ff) !== 0;
      if (!isNaNHalf) expect(back[i]).toBe(i);
    }
  });

  test("rounds to nearest even", () => {
    expect([...toFloat16(Float32Array.of(1 + 2 ** -11, 1 + 3 * 2 ** -11, 65_520, 1e-9))]).toEqual([
      0x3c00, 0x3c02, 0x7c00, 0,
    ]);
  });
});

describe("the rows of a rotary projection", () => {
  test("of each head become pairs", () => {
    const rows = Float32Array.from({ length: 8 }, (_, i) => i);
    expect([...permuteHeads(rows, 8, 2)]).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
  });

  test("turn a vector the same way in both layouts", () => {
    // One head of 4: rotate halves as transformers does, and pairs as llama.cpp does.
    const vector = Float32Array.of(1, 2, 3, 4);
    const angles = [0.3, 0.7];
    const half = vector.map((value, i) => {
      const angle = angles[i % 2] ?? 0;
      const other = (i < 2 ? -1 : 1) * (vector[(i + 2) % 4] ?? 0);
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
    const pairs = permuteHeads(vector, 4, 1);
    const turned = pairs.map((value, i) => {
      const angle = angles[Math.floor(i / 2)] ?? 0;
      const other = (i % 2 === 0 ? -1 : 1) * (pairs[i ^ 1] ?? 0);
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
    const expected = permuteHeads(half, 4, 1);
    for (const [i, value] of turned.entries()) expect(value).toBeCloseTo(expected[i] ?? NaN, 5);
  });
});
