import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openAdapter } from "../../../workers/adapter-merger/adapter/open.ts";
import { MergeFault } from "../../../workers/adapter-merger/fault.ts";
import { threefry, type StreamKey } from "../../../workers/adapter-merger/math/random.ts";
import { elementCount } from "../../../workers/adapter-merger/safetensors/header.ts";
import { SafetensorsFile } from "../../../workers/adapter-merger/safetensors/reader.ts";
import {
  Folder,
  normal,
  normalAdapter,
  writeTensors,
} from "../../integration/adapter-merger/support.ts";

/** `MERGE_FUZZ=100000` for the long form; the short one is part of every test run. */
const MUTATIONS = Number(process.env["MERGE_FUZZ"] ?? 6000);
const MEMORY_LIMIT_BYTES = 200e6;

/** Repeatable random numbers: a failing round can be run again by its number. */
class Dice {
  readonly #key: StreamKey;
  readonly #words = new Uint32Array(2);
  #count = 0;

  constructor(round: number) {
    this.#key = { low: round, high: 0x5eed };
  }

  below(limit: number): number {
    threefry(this.#key, { low: this.#count, high: 0 }, this.#words);
    this.#count += 1;
    return Math.floor(((this.#words[0] ?? 0) / 2 ** 32) * limit);
  }
}

const TOKENS = [
  "{",
  "}",
  "[",
  "]",
  '"',
  ":",
  ",",
  "\\",
  "0",
  "-1",
  "9".repeat(18),
  "1e9",
  "F16",
  "I64",
  "BOOL",
  "null",
  "__metadata__",
  "\\u0000",
  "data_offsets",
  "é",
  " ",
];

type Mutator = (bytes: Buffer, at: number, dice: Dice) => Buffer;

function splice(bytes: Buffer, at: number, cut: number, middle: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, at), middle, bytes.subarray(at + cut)]);
}

const MUTATORS: readonly Mutator[] = [
  (bytes, at, dice) => splice(bytes, at, 1, Buffer.of((bytes[at] ?? 0) ^ (1 << dice.below(8)))),
  (bytes, at) => bytes.subarray(0, at),
  (bytes, at, dice) => splice(bytes, at, 0, bytes.subarray(at, at + dice.below(64))),
  (bytes, at, dice) => splice(bytes, at, 0, token(dice)),
  (bytes, at, dice) => splice(bytes, at, token(dice).length, token(dice)),
  (bytes, at, dice) => splice(bytes, at, dice.below(32), Buffer.alloc(0)),
  // A lie about the length of the header.
  (bytes, _, dice) => splice(bytes, 0, 8, framed(dice.below(2 ** 31))),
];

function token(dice: Dice): Buffer {
  return Buffer.from(TOKENS[dice.below(TOKENS.length)] ?? "");
}

/** A header length as it stands in front of a file. */
function framed(length: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(length));
  return bytes;
}

/** One to three mutations, most of them in the header; half of the time its length agrees after. */
function mutate(original: Buffer, dice: Dice): Buffer {
  const headerBytes = Number(original.readBigUInt64LE());
  let bytes = Buffer.from(original);
  for (let step = dice.below(3); step >= 0 && bytes.length > 0; step -= 1) {
    const range = dice.below(4) === 0 ? bytes.length : Math.min(8 + headerBytes, bytes.length);
    const mutator = MUTATORS[dice.below(MUTATORS.length)];
    if (mutator !== undefined) bytes = Buffer.from(mutator(bytes, dice.below(range), dice));
  }
  if (bytes.length < 8 || dice.below(2) === 0) return bytes;
  const length = Math.max(0, headerBytes + bytes.length - original.length);
  return splice(bytes, 0, 8, framed(length));
}

test("no mutation of a safetensors file crashes the reader, reads outside it or holds its size", () => {
  using folder = new Folder();
  const path = folder.in("model.safetensors");
  writeTensors(path, {
    "a.weight": normal([4, 3], "a"),
    "b.weight": normal([5], "b", "BF16"),
    c: normal([2, 2, 2], "c", "F16"),
  });
  const original = readFileSync(path);
  const counts = { refused: 0, read: 0 };
  const before = process.memoryUsage().rss;
  for (let round = 0; round < MUTATIONS; round += 1) {
    const bytes = mutate(original, new Dice(round));
    writeFileSync(path, bytes);
    try {
      using file = SafetensorsFile.open(path);
      for (const info of file.header.tensors.values()) {
        expect(file.dataStart + info.end).toBeLessThanOrEqual(bytes.length);
        expect(elementCount(info.shape)).toBeLessThanOrEqual(bytes.length);
        file.readBytes(info, 0, new Uint8Array(info.end - info.start));
      }
      counts.read += 1;
    } catch (error) {
      if (!(error instanceof MergeFault)) throw new Error(`round ${round}`, { cause: error });
      expect(error.code).toBe("FILE_INVALID");
      counts.refused += 1;
    }
  }
  expect(counts.read + counts.refused).toBe(MUTATIONS);
  expect(counts.refused).toBeGreaterThan(counts.read);
  expect(process.memoryUsage().rss - before).toBeLessThan(MEMORY_LIMIT_BYTES);
});

test("no mutation of an adapter's config or header gets past opening with anything but a typed error", () => {
  using folder = new Folder();
  const adapter = normalAdapter(folder.in("a"), {
    seed: "a",
    config: { rank_pattern: { q_proj: 4 }, modules_to_save: [] },
  });
  const names = ["adapter_config.json", "adapter_model.safetensors"] as const;
  const originals = names.map((name) => readFileSync(join(adapter, name)));
  const other = folder.in("b");
  mkdirSync(other);
  let opened = 0;
  for (let round = 0; round < MUTATIONS / 6; round += 1) {
    const dice = new Dice(1_000_000 + round);
    for (const [i, name] of names.entries()) {
      const original = originals[i] ?? Buffer.alloc(0);
      // A config has no length in front: the mutation gets one and loses it again.
      const whole = i === 0 ? Buffer.concat([framed(original.length), original]) : original;
      const mutated = dice.below(2) === i ? mutate(whole, dice) : whole;
      writeFileSync(join(other, name), i === 0 ? mutated.subarray(8) : mutated);
    }
    try {
      openAdapter(other);
      opened += 1;
    } catch (error) {
      if (!(error instanceof MergeFault)) throw new Error(`round ${round}`, { cause: error });
    }
  }
  expect(opened).toBeLessThan(MUTATIONS / 6);
});
