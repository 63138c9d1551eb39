import { open, type FileHandle } from "node:fs/promises";
import type { CjmError } from "cjm-substrate/worker";
import { errnoOf, refuse } from "../fault.ts";
import {
  align,
  DEFAULT_ALIGNMENT,
  MAGIC,
  TENSOR_TYPES,
  VALUE_TYPES,
  type GgufMetadata,
  type GgufValue,
  type Scalar,
  type ScalarType,
  type TensorInfo,
  type ValueType,
} from "./format.ts";

/** Longest header that is read: a vocabulary of a million long tokens stays below. */
const HEADER_MAX_BYTES = 256 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;
const ITEMS_MAX = 16_000_000;
const ENTRIES_MAX = 1_000_000;

export interface GgufHeader {
  readonly metadata: GgufMetadata;
  readonly tensors: readonly TensorInfo[];
  readonly fileBytes: number;
}

/**
 * Reads what a GGUF file says of itself, without its tensors.
 *
 * @throws {CjmError} `model_missing`, or `model_invalid` for anything but a complete GGUF file:
 * another format, a truncated one, sizes that do not fit.
 */
export async function readGguf(path: string): Promise<GgufHeader> {
  await using file = await openModel(path);
  const { size } = await file.stat();
  const reader = new HeaderReader(file, path, size);
  if ((await reader.number("uint32")) !== MAGIC) throw invalid(path, "is not a GGUF file");
  const version = await reader.number("uint32");
  if (version !== 2 && version !== 3) throw invalid(path, `has GGUF version ${version}`);
  const tensorCount = await reader.count(ENTRIES_MAX);
  const entryCount = await reader.count(ENTRIES_MAX);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < entryCount; i += 1) metadata.set(await reader.text(), await reader.value());
  const infos: RawInfo[] = [];
  for (let i = 0; i < tensorCount; i += 1) infos.push(await reader.tensor());
  const alignment = numberOf(metadata, "general.alignment") ?? DEFAULT_ALIGNMENT;
  const start = align(reader.position, alignment);
  return {
    metadata,
    tensors: infos.map((info) => located(path, info, { start, size })),
    fileBytes: size,
  };
}

async function openModel(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (error) {
    const code = errnoOf(error);
    throw refuse("model_missing", `${path} cannot be opened: ${code}`, { cause: error });
  }
}

function invalid(path: string, what: string): CjmError {
  return refuse("model_invalid", `${path} ${what}`, { details: { path } });
}

interface RawInfo {
  readonly name: string;
  readonly dimensions: readonly number[];
  readonly type: number;
  readonly offset: number;
}

function located(
  path: string,
  { name, dimensions, type, offset }: RawInfo,
  data: { readonly start: number; readonly size: number },
): TensorInfo {
  const [typeName, blockItems, blockBytes] = TENSOR_TYPES.get(type) ?? [];
  if (typeName === undefined || blockItems === undefined || blockBytes === undefined) {
    throw invalid(path, `has tensor ${name} of unknown type ${type}`);
  }
  const items = dimensions.reduce((product, size) => product * size, 1);
  const bytes = Math.ceil(items / blockItems) * blockBytes;
  const start = data.start + offset;
  if (start + bytes > data.size) {
    throw invalid(path, `is truncated: tensor ${name} ends at ${start + bytes} of ${data.size}`);
  }
  return { name, dimensions, type: typeName, start, bytes };
}

export function numberOf(metadata: GgufMetadata, key: string): number | undefined {
  const value = metadata.get(key);
  if (value === undefined || value.type === "array") return undefined;
  return typeof value.value === "number" || typeof value.value === "bigint"
    ? Number(value.value)
    : undefined;
}

export function textOf(metadata: GgufMetadata, key: string): string | undefined {
  const value = metadata.get(key);
  return value?.type === "string" && typeof value.value === "string" ? value.value : undefined;
}

const TYPE_NAMES = new Map<number, ValueType>(
  Object.keys(VALUE_TYPES).flatMap((name) =>
    isValueType(name) ? [[VALUE_TYPES[name], name] as const] : [],
  ),
);

function isValueType(name: string): name is ValueType {
  return Object.hasOwn(VALUE_TYPES, name);
}

type NumberType = Exclude<ScalarType, "string">;
const NUMBERS: Readonly<
  Record<NumberType, { readonly bytes: number; readonly read: (from: Buffer) => Scalar }>
> = {
  bool: { bytes: 1, read: (from) => from.readUInt8() !== 0 },
  uint8: { bytes: 1, read: (from) => from.readUInt8() },
  int8: { bytes: 1, read: (from) => from.readInt8() },
  uint16: { bytes: 2, read: (from) => from.readUInt16LE() },
  int16: { bytes: 2, read: (from) => from.readInt16LE() },
  uint32: { bytes: 4, read: (from) => from.readUInt32LE() },
  int32: { bytes: 4, read: (from) => from.readInt32LE() },
  float32: { bytes: 4, read: (from) => from.readFloatLE() },
  uint64: { bytes: 8, read: (from) => from.readBigUInt64LE() },
  int64: { bytes: 8, read: (from) => from.readBigInt64LE() },
  float64: { bytes: 8, read: (from) => from.readDoubleLE() },
};

/** Reads the header front to back, a chunk of the file at a time. */
class HeaderReader {
  #buffer = Buffer.alloc(0);
  #at = 0;
  #read = 0;
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #size: number;

  constructor(file: FileHandle, path: string, size: number) {
    this.#file = file;
    this.#path = path;
    this.#size = size;
  }

  get position(): number {
    return this.#read - this.#buffer.byteLength + this.#at;
  }

  async value(): Promise<GgufValue> {
    const type = await this.#type();
    if (type !== "array") return { type, value: await this.#scalar(type) };
    const of = await this.#type();
    if (of === "array") throw invalid(this.#path, "has an array of arrays in its metadata");
    const items: Scalar[] = [];
    const count = await this.count(ITEMS_MAX);
    for (let i = 0; i < count; i += 1) {
      // Awaiting every token of a vocabulary would take seconds.
      const ready = this.#ready(of);
      items.push(ready ?? (await this.#scalar(of)));
    }
    return { type: "array", of, items };
  }

  async tensor(): Promise<RawInfo> {
    const name = await this.text();
    const rank = await this.number("uint32");
    if (rank > 8) throw invalid(this.#path, `has tensor ${name} of ${rank} dimensions`);
    const dimensions: number[] = [];
    for (let i = 0; i < rank; i += 1) dimensions.push(await this.count(2 ** 48));
    const type = await this.number("uint32");
    return { name, dimensions, type, offset: await this.count(2 ** 52) };
  }

  /** An unsigned 64-bit number, no larger than `most`. */
  async count(most: number): Promise<number> {
    const value = await this.number("uint64");
    if (value > most) throw invalid(this.#path, `holds the impossible count ${value}`);
    return value;
  }

  async number(type: NumberType): Promise<number> {
    return Number(await this.#scalar(type));
  }

  async text(): Promise<string> {
    return String(await this.#scalar("string"));
  }

  async #type(): Promise<ValueType> {
    const number = await this.number("uint32");
    const type = TYPE_NAMES.get(number);
    if (type === undefined) throw invalid(this.#path, `has metadata of unknown type ${number}`);
    return type;
  }

  async #scalar(type: ScalarType): Promise<Scalar> {
    if (type !== "string") {
      await this.#need(NUMBERS[type].bytes);
      return this.#number(type);
    }
    const length = await this.count(HEADER_MAX_BYTES);
    await this.#need(length);
    return this.#take(length).toString("utf8");
  }

  /** The next value where all of it is in memory already. */
  #ready(type: ScalarType): Scalar | undefined {
    const there = this.#buffer.byteLength - this.#at;
    if (type !== "string") return there >= NUMBERS[type].bytes ? this.#number(type) : undefined;
    if (there < 8) return undefined;
    const length = Number(this.#buffer.readBigUInt64LE(this.#at));
    if (there < 8 + length) return undefined;
    this.#at += 8;
    return this.#take(length).toString("utf8");
  }

  #take(bytes: number): Buffer {
    const taken = this.#buffer.subarray(this.#at, this.#at + bytes);
    this.#at += bytes;
    return taken;
  }

  #number(type: NumberType): Scalar {
    return NUMBERS[type].read(this.#take(NUMBERS[type].bytes));
  }

  async #need(bytes: number): Promise<void> {
    const there = this.#buffer.byteLength - this.#at;
    if (there >= bytes) return;
    const wanted = Math.max(CHUNK_BYTES, bytes - there);
    if (this.#read + bytes - there > Math.min(this.#size, HEADER_MAX_BYTES)) {
      throw invalid(this.#path, "is truncated: its header ends early");
    }
    const more = Buffer.alloc(wanted);
    const { bytesRead } = await this.#file.read(more, 0, wanted, this.#read);
    this.#buffer = Buffer.concat([this.#buffer.subarray(this.#at), more.subarray(0, bytesRead)]);
    this.#at = 0;
    this.#read += bytesRead;
    if (this.#buffer.byteLength < bytes) {
      throw invalid(this.#path, "is truncated: its header ends early");
    }
  }
}
