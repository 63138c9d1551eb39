import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  decodeFloats,
  encodeFloats,
  roundNumber,
} from "../../../workers/adapter-merger/safetensors/dtype.ts";
import { parseHeader } from "../../../workers/adapter-merger/safetensors/header.ts";
import { SafetensorsFile } from "../../../workers/adapter-merger/safetensors/reader.ts";
import { createFile, TensorSink } from "../../../workers/adapter-merger/safetensors/writer.ts";
import { Folder, normal, writeTensors } from "../../integration/adapter-merger/support.ts";

/** A file with the given header text and data. */
function fileOf(
  folder: Folder,
  header: string,
  data = new Uint8Array(0),
  declared?: bigint,
): string {
  const path = folder.in("x.safetensors");
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(declared ?? BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, data]));
  return path;
}

const info = (from: number, to: number, shape: string = `[${(to - from) / 4}]`): string =>
  `{"dtype":"F32","shape":${shape},"data_offsets":[${from},${to}]}`;

describe("writing and reading", () => {
  test.for(["F32", "F16", "BF16"] as const)("%s values come back as they were rounded", (dtype) => {
    using folder = new Folder();
    const path = folder.in("w.safetensors");
    const { values } = normal([3, 7], "w");
    writeTensors(path, { "a.weight": { shape: [3, 7], values, dtype } });
    using file = SafetensorsFile.open(path);
    const want = values.map((value) => roundNumber(dtype, value));
    expect([...file.floats("a.weight")]).toEqual([...want]);
    const part = new Float32Array(4);
    file.readFloats(file.tensor("a.weight"), 5, part);
    expect([...part]).toEqual([...want.subarray(5, 9)]);
    expect(() => file.readFloats(file.tensor("a.weight"), 20, part)).toThrow(RangeError);
  });

  test("data begins at a multiple of 8 and the header is JSON that others can read", () => {
    using folder = new Folder();
    const path = folder.in("w.safetensors");
    writeTensors(path, { b: normal([2], "b"), a: normal([2, 2], "a") });
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE());
    expect(length % 8).toBe(0);
    expect(JSON.parse(bytes.subarray(8, 8 + length).toString())).toEqual({
      __metadata__: { format: "pt" },
      b: { dtype: "F32", shape: [2], data_offsets: [0, 8] },
      a: { dtype: "F32", shape: [2, 2], data_offsets: [8, 24] },
    });
  });

  test("a file that exists is not written over, and a write past a tensor is refused", () => {
    using folder = new Folder();
    const spec = [{ name: "a", dtype: "F32", shape: [2] }] as const;
    const layout = createFile(folder.in("w"), spec, {});
    expect(() => createFile(folder.in("w"), spec, {})).toThrow("EEXIST");
    using sink = new TensorSink(layout);
    expect(() => sink.writeFloats("a", 1, new Float32Array(2))).toThrow(RangeError);
    expect(() => sink.writeFloats("b", 0, new Float32Array(1))).toThrow("no tensor");
  });

  test("a file that shrinks while it is open is an error, not zeros", () => {
    using folder = new Folder();
    const path = folder.in("w.safetensors");
    writeTensors(path, { a: normal([64], "a") });
    using file = SafetensorsFile.open(path);
    writeFileSync(path, readFileSync(path).subarray(0, 100));
    expect(() => file.floats("a")).toThrow("shrank");
  });

  test("other dtypes can be copied but not read as floats", () => {
    using folder = new Folder();
    const header = `{"q":{"dtype":"I8","shape":[3],"data_offsets":[0,3]}}`;
    using file = SafetensorsFile.open(fileOf(folder, header, Uint8Array.of(1, 2, 255)));
    const bytes = new Uint8Array(3);
    file.readBytes(file.tensor("q"), 0, bytes);
    expect([...bytes]).toEqual([1, 2, 255]);
    expect(() => file.floats("q")).toThrow("is I8");
    expect(() => file.readBytes(file.tensor("q"), 1, bytes)).toThrow(RangeError);
  });
});

describe("a malformed file is refused", () => {
  const zero = '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}';
  test.for([
    ["an array", "[]", 0],
    ["empty", "", 0],
    ["cut off", '{"a":', 0],
    ["with text behind it", `${zero} x`, 0],
    ["with a duplicate tensor", `{"a":${info(0, 4)},"a":${info(4, 8)}}`, 8],
    ["with duplicate metadata", '{"__metadata__":{"a":"1","a":"2"}}', 0],
    ["with metadata twice", '{"__metadata__":{},"__metadata__":{}}', 0],
    [
      "with a duplicate member",
      '{"a":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}',
      0,
    ],
    ["with an unknown member", '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":[1]}}', 0],
    ["with a missing member", '{"a":{"dtype":"F32","shape":[0]}}', 0],
    ["with an unknown dtype", '{"a":{"dtype":"F99","shape":[0],"data_offsets":[0,0]}}', 0],
    ["with a hole", `{"a":${info(0, 4)},"b":${info(8, 12)}}`, 12],
    ["with a hole in front", `{"a":${info(4, 8)}}`, 8],
    ["with an overlap", `{"a":${info(0, 8)},"b":${info(4, 12)}}`, 12],
    ["with the same range twice", `{"a":${info(0, 4)},"b":${info(0, 4)}}`, 4],
    ["with offsets behind the end", `{"a":${info(0, 8)}}`, 4],
    ["with uncovered bytes", `{"a":${info(0, 4)}}`, 8],
    ["with reversed offsets", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', 4],
    ["with a shape that does not fit", `{"a":${info(0, 8, "[3]")}}`, 8],
    ["with a shape that overflows", `{"a":${info(0, 0, "[4294967296,4294967296,4294967296]")}}`, 0],
    ["with a negative size", `{"a":${info(0, 4, "[-1]")}}`, 4],
    ["with a fraction", `{"a":${info(0, 4, "[1.0]")}}`, 4],
    ["with an exponent", `{"a":${info(0, 4, "[1e0]")}}`, 4],
    ["with a number past 2^53", `{"a":${info(0, 4, "[9007199254740993]")}}`, 4],
    ["with a leading zero", `{"a":${info(0, 4, "[01]")}}`, 4],
    ["with too many dimensions", `{"a":${info(0, 4, `[${"1,".repeat(40)}1]`)}}`, 4],
    ["with a bad escape", '{"\\x":{}}', 0],
    ["with a control character", '{"a\n":{}}', 0],
    ["with metadata that is no text", '{"__metadata__":{"a":1}}', 0],
    ["with white space in front", ` ${zero}`, 0],
  ] as const)("header %s", ([, header, dataBytes]) => {
    using folder = new Folder();
    const path = fileOf(folder, header, new Uint8Array(dataBytes));
    expect(() => SafetensorsFile.open(path)).toThrow(
      expect.objectContaining({ code: "FILE_INVALID" }),
    );
  });

  test.for([
    ["longer than the file", "{}", 100n],
    ["longer than the limit", "{}", 1n << 30n],
    ["longer than a number", "{}", (1n << 64n) - 1n],
  ] as const)("header length %s", ([, header, declared]) => {
    using folder = new Folder();
    const path = fileOf(folder, header, new Uint8Array(0), declared);
    expect(() => SafetensorsFile.open(path)).toThrow(
      expect.objectContaining({ code: "FILE_INVALID" }),
    );
  });

  test("bytes that are not UTF-8, a short file, a folder", () => {
    using folder = new Folder();
    const path = fileOf(folder, "{}");
    const descriptor = openSync(path, "r+");
    writeSync(descriptor, Uint8Array.of(0x7b, 0xff), 0, 2, 8);
    closeSync(descriptor);
    expect(() => SafetensorsFile.open(path)).toThrow("UTF-8");
    writeFileSync(path, "1234");
    expect(() => SafetensorsFile.open(path)).toThrow("shorter");
    expect(() => SafetensorsFile.open(folder.path)).toThrow("regular file");
  });

  test("padding behind the header and names that look like other things are fine", () => {
    const text = `{"__proto__":${info(0, 4)},"constructor":${info(4, 8)},"1":${info(8, 12)}}   `;
    expect([...parseHeader(text, 12).tensors.keys()]).toEqual(["__proto__", "constructor", "1"]);
  });
});

describe("half precision", () => {
  test("every 16-bit pattern survives a round trip", () => {
    const patterns = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    for (const dtype of ["F16", "BF16"] as const) {
      const values = new Float32Array(65_536);
      decodeFloats(dtype, new Uint8Array(patterns.buffer), values);
      const back = encodeFloats(dtype, values, new Uint16Array(65_536));
      const words = new Uint16Array(back.buffer, back.byteOffset, 65_536);
      const isNaNPattern = (i: number): boolean => Number.isNaN(values[i]);
      expect(
        patterns.filter((pattern, i) => words[i] !== pattern && !isNaNPattern(i)),
      ).toHaveLength(0);
      expect(
        patterns.filter(
          (_, i) => isNaNPattern(i) !== Number.isNaN(roundNumber(dtype, values[i] ?? 0)),
        ),
      ).toHaveLength(0);
    }
  });

  test.for([
    [65_504, 65_504],
    [65_519.99, 65_504],
    [65_520, Infinity],
    [2 ** -24, 2 ** -24],
    [2 ** -25, 0],
    [2 ** -25 * 1.0001, 2 ** -24],
    [1 + 2 ** -11, 1],
    [1 + 3 * 2 ** -11, 1 + 2 ** -9],
    [-(2 ** -14) + 2 ** -25, -(2 ** -14)],
  ] as const)("F16 rounds %d to %d", ([value, want]) => {
    expect(Math.abs(roundNumber("F16", value))).toBe(Math.abs(want));
  });
});
