import { createHash } from "node:crypto";
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import {
  align,
  DEFAULT_ALIGNMENT,
  FLOAT_TYPES,
  MAGIC,
  VALUE_TYPES,
  VERSION,
  type FloatType,
  type GgufMetadata,
  type GgufValue,
  type Scalar,
  type ScalarType,
} from "./format.ts";
import { toFloat16 } from "./float16.ts";

export interface TensorSource {
  readonly name: string;
  /** Fastest dimension first. */
  readonly dimensions: readonly number[];
  readonly type: FloatType;
  /** All values, in the order of the file; asked for once, when the tensor is written. */
  readonly values: () => Promise<Float32Array> | Float32Array;
}

export interface WriteOptions {
  readonly signal?: AbortSignal;
  /** Called before each tensor with the bytes written and to be written. */
  readonly progress?: (done: number, total: number) => void;
}

/**
 * Writes a GGUF file and returns its `sha256:<hex>`; one tensor is in memory at a time.
 *
 * The file appears under its name when it is complete: until then it has the suffix `.partial`.
 */
export async function writeGguf(
  path: string,
  content: { readonly metadata: GgufMetadata; readonly tensors: readonly TensorSource[] },
  options: WriteOptions = {},
): Promise<string> {
  const partial = `${path}.partial`;
  try {
    const hash = await writeAll(partial, content, options);
    await rename(partial, path);
    return hash;
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

async function writeAll(
  path: string,
  { metadata, tensors }: Parameters<typeof writeGguf>[1],
  { signal, progress }: WriteOptions,
): Promise<string> {
  await using file = await open(path, "w");
  const out = new HashingFile(file);
  const total = tensors.reduce((sum, tensor) => sum + paddedBytes(tensor), 0);
  await out.write(header(metadata, tensors));
  for (const tensor of tensors) {
    signal?.throwIfAborted();
    progress?.(out.dataBytes, total);
    await out.write(await tensorBytes(tensor));
  }
  await file.sync();
  return out.digest();
}

class HashingFile {
  dataBytes = 0;
  readonly #hash = createHash("sha256");
  readonly #file: FileHandle;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes);
    await this.#file.writeFile(bytes);
    this.dataBytes += bytes.byteLength;
  }

  digest(): string {
    return `sha256:${this.#hash.digest("hex")}`;
  }
}

function bytesOf({ dimensions, type }: TensorSource): number {
  return dimensions.reduce((product, size) => product * size, 1) * (type === "F32" ? 4 : 2);
}

function paddedBytes(tensor: TensorSource): number {
  return align(bytesOf(tensor), DEFAULT_ALIGNMENT);
}

async function tensorBytes(tensor: TensorSource): Promise<Uint8Array> {
  const values = await tensor.values();
  const bytes = bytesOf(tensor);
  if (values.length * (tensor.type === "F32" ? 4 : 2) !== bytes) {
    throw new RangeError(`${tensor.name} has ${values.length} values for ${bytes} bytes`);
  }
  const out = new Uint8Array(paddedBytes(tensor));
  const stored = tensor.type === "F32" ? values : toFloat16(values);
  out.set(new Uint8Array(stored.buffer, stored.byteOffset, bytes));
  return out;
}

function header(metadata: GgufMetadata, tensors: readonly TensorSource[]): Uint8Array {
  const bytes = new ByteWriter();
  bytes.scalar("uint32", MAGIC);
  bytes.scalar("uint32", VERSION);
  bytes.scalar("uint64", tensors.length);
  bytes.scalar("uint64", metadata.size);
  for (const [key, value] of metadata) bytes.entry(key, value);
  let offset = 0;
  for (const tensor of tensors) {
    bytes.scalar("string", tensor.name);
    bytes.scalar("uint32", tensor.dimensions.length);
    for (const size of tensor.dimensions) bytes.scalar("uint64", size);
    bytes.scalar("uint32", FLOAT_TYPES[tensor.type]);
    bytes.scalar("uint64", offset);
    offset += paddedBytes(tensor);
  }
  return bytes.padded(DEFAULT_ALIGNMENT);
}

/** Writes one number and returns where the next byte goes. */
const NUMBERS: Readonly<
  Record<Exclude<ScalarType, "string">, (to: Buffer, value: Scalar, at: number) => number>
> = {
  bool: (to, value, at) => to.writeUInt8(value === true ? 1 : 0, at),
  uint8: (to, value, at) => to.writeUInt8(Number(value), at),
  int8: (to, value, at) => to.writeInt8(Number(value), at),
  uint16: (to, value, at) => to.writeUInt16LE(Number(value), at),
  int16: (to, value, at) => to.writeInt16LE(Number(value), at),
  uint32: (to, value, at) => to.writeUInt32LE(Number(value), at),
  int32: (to, value, at) => to.writeInt32LE(Number(value), at),
  float32: (to, value, at) => to.writeFloatLE(Number(value), at),
  float64: (to, value, at) => to.writeDoubleLE(Number(value), at),
  uint64: (to, value, at) => to.writeBigUInt64LE(BigInt(value), at),
  int64: (to, value, at) => to.writeBigInt64LE(BigInt(value), at),
};

/** Little-endian bytes that grow as they are written. */
class ByteWriter {
  #bytes = Buffer.alloc(64 * 1024);
  #length = 0;

  entry(key: string, value: GgufValue): void {
    this.scalar("string", key);
    this.scalar("uint32", VALUE_TYPES[value.type]);
    if (value.type !== "array") {
      this.scalar(value.type, value.value);
      return;
    }
    this.scalar("uint32", VALUE_TYPES[value.of]);
    this.scalar("uint64", value.items.length);
    for (const item of value.items) this.scalar(value.of, item);
  }

  scalar(type: ScalarType, value: Scalar): void {
    if (type === "string") {
      this.#text(String(value));
      return;
    }
    this.#reserve(8);
    this.#length = NUMBERS[type](this.#bytes, value, this.#length);
  }

  padded(alignment: number): Uint8Array {
    const end = align(this.#length, alignment);
    this.#reserve(end - this.#length);
    return this.#bytes.subarray(0, end);
  }

  #text(value: string): void {
    const bytes = Buffer.from(value, "utf8");
    this.scalar("uint64", bytes.byteLength);
    this.#reserve(bytes.byteLength);
    this.#length += bytes.copy(this.#bytes, this.#length);
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#bytes.byteLength) return;
    const larger = Buffer.alloc(Math.max(needed, this.#bytes.byteLength * 2));
    this.#bytes.copy(larger, 0, 0, this.#length);
    this.#bytes = larger;
  }
}
