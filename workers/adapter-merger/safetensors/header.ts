import { MergeFault } from "../fault.ts";
import { elementBytes, isDtype, type Dtype } from "./dtype.ts";

/** Longest header that is read; the largest published models stay below 2 MiB. */
export const HEADER_MAX_BYTES = 16 * 1024 * 1024;
const RANK_MAX = 16;

export interface TensorInfo {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Byte offsets from the start of the data, end exclusive. */
  readonly start: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * Reads the JSON text of a safetensors header.
 *
 * Stricter than a JSON parser: duplicate keys, unknown members, holes, overlaps, offsets that do
 * not match dtype and shape, and data that no tensor covers are all refused. Format:
 * https://huggingface.co/docs/safetensors (8-byte little-endian length, JSON, data).
 *
 * @param dataBytes bytes of the file behind the header
 * @throws {MergeFault} `FILE_INVALID`, naming the tensor where there is one
 */
export function parseHeader(text: string, dataBytes: number): SafetensorsHeader {
  const scanner = new HeaderScanner(text);
  const tensors = new Map<string, TensorInfo>();
  let metadata: Record<string, string> | undefined;
  scanner.members((name) => {
    if (name === "__metadata__") {
      if (metadata !== undefined) invalid("duplicate_key", "Duplicate key __metadata__");
      metadata = scanner.stringMap();
      return;
    }
    if (tensors.has(name)) invalid("duplicate_key", `Duplicate tensor "${name}"`, name);
    tensors.set(name, tensorInfo(name, scanner.tensor(name)));
  });
  scanner.end();
  checkCoverage(tensors, dataBytes);
  return { tensors, metadata: metadata ?? {} };
}

interface RawTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly offsets: readonly number[];
}

function tensorInfo(name: string, { dtype, shape, offsets }: RawTensor): TensorInfo {
  if (!isDtype(dtype)) invalid("dtype", `Tensor "${name}" has unknown dtype "${dtype}"`, name);
  const [start, end, ...rest] = offsets;
  if (start === undefined || end === undefined || rest.length > 0) {
    invalid("offsets", `Tensor "${name}" needs two data_offsets`, name);
  }
  const bytes = elementCount(shape) * elementBytes(dtype);
  if (!Number.isSafeInteger(bytes) || end - start !== bytes) {
    const held = `${end - start} bytes for ${dtype} [${shape.join(", ")}]`;
    invalid("offsets", `Tensor "${name}" holds ${held}`, name);
  }
  return { name, dtype, shape, start, end };
}

function checkCoverage(tensors: ReadonlyMap<string, TensorInfo>, dataBytes: number): void {
  const ordered = [...tensors.values()].sort((a, b) => a.start - b.start || a.end - b.end);
  let covered = 0;
  for (const { name, start, end } of ordered) {
    if (start < covered) invalid("overlap", `Tensor "${name}" overlaps another one`, name);
    if (start > covered) invalid("hole", `${start - covered} unused bytes before "${name}"`, name);
    covered = end;
  }
  if (covered > dataBytes) {
    invalid("truncated", `The tensors need ${covered} bytes; the file holds ${dataBytes}`);
  }
  if (covered < dataBytes) {
    invalid("hole", `${dataBytes - covered} bytes behind the last tensor`);
  }
}

export function invalid(reason: string, message: string, tensor?: string): never {
  throw new MergeFault("FILE_INVALID", reason, message, tensor === undefined ? {} : { tensor });
}

/** Reads exactly the JSON that a header may contain, so that nothing else has to be bounded. */
class HeaderScanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** One object; `read` must consume the value of the key that it is given. */
  members(read: (key: string) => void): void {
    this.#expect("{");
    if (this.#accept("}")) return;
    do {
      const key = this.#string();
      this.#expect(":");
      read(key);
    } while (this.#accept(","));
    this.#expect("}");
  }

  stringMap(): Record<string, string> {
    const entries = new Map<string, string>();
    this.members((key) => {
      if (entries.has(key)) invalid("duplicate_key", `Duplicate metadata key "${key}"`);
      entries.set(key, this.#string());
    });
    return Object.fromEntries(entries);
  }

  tensor(name: string): RawTensor {
    let dtype: string | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    this.members((key) => {
      if (key === "dtype" && dtype === undefined) dtype = this.#string();
      else if (key === "shape" && shape === undefined) shape = this.#integers();
      else if (key === "data_offsets" && offsets === undefined) offsets = this.#integers();
      else invalid("header", `Tensor "${name}" has an unknown or repeated member "${key}"`, name);
    });
    if (dtype === undefined || shape === undefined || offsets === undefined) {
      invalid("header", `Tensor "${name}" needs dtype, shape and data_offsets`, name);
    }
    return { dtype, shape, offsets };
  }

  end(): void {
    this.#space();
    if (this.#at !== this.#text.length) invalid("header", `Text behind the header's last brace`);
  }

  #integers(): number[] {
    const values: number[] = [];
    this.#expect("[");
    if (this.#accept("]")) return values;
    do {
      values.push(this.#integer());
      if (values.length > RANK_MAX) invalid("header", `More than ${RANK_MAX} dimensions`);
    } while (this.#accept(","));
    this.#expect("]");
    return values;
  }

  #integer(): number {
    this.#space();
    const from = this.#at;
    while (isDigit(this.#text.charCodeAt(this.#at))) this.#at += 1;
    const digits = this.#text.slice(from, this.#at);
    const value = Number(digits);
    const isLeadingZero = digits.length > 1 && digits.startsWith("0");
    if (digits === "" || isLeadingZero || !Number.isSafeInteger(value)) {
      invalid("header", `Expected a whole number at character ${from} of the header`);
    }
    return value;
  }

  #string(): string {
    this.#expect('"');
    const from = this.#at - 1;
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (Number.isNaN(code) || code < 0x20) invalid("header", "Unterminated string in the header");
      this.#at += code === 0x5c ? 2 : 1;
      if (code === 0x22) break;
    }
    try {
      const value: unknown = JSON.parse(this.#text.slice(from, this.#at));
      return String(value);
    } catch {
      return invalid("header", `Malformed string at character ${from} of the header`);
    }
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at += 1;
    }
  }

  #accept(token: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== token) return false;
    this.#at += 1;
    return true;
  }

  #expect(token: string): void {
    if (!this.#accept(token)) {
      invalid("header", `Expected "${token}" at character ${this.#at} of the header`);
    }
  }
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

export interface TensorSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/**
 * The bytes in front of the data of a new file (length, JSON padded with spaces to 8 bytes) and
 * where each tensor lies. Tensors follow each other in the order given.
 */
export function encodeHeader(
  specs: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>>,
): { readonly bytes: Buffer; readonly tensors: ReadonlyMap<string, TensorInfo>; readonly dataBytes: number } {
  const tensors = new Map<string, TensorInfo>();
  let at = 0;
  for (const { name, dtype, shape } of specs) {
    const end = at + elementCount(shape) * elementBytes(dtype);
    tensors.set(name, { name, dtype, shape, start: at, end });
    at = end;
  }
  const entries = [...tensors.values()].map(({ name, dtype, shape, start, end }) => {
    return [name, { dtype, shape, data_offsets: [start, end] }] as const;
  });
  const json = JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) });
  const text = Buffer.from(json, "utf8");
  const padded = Math.ceil(text.length / 8) * 8;
  const bytes = Buffer.alloc(8 + padded, " ");
  bytes.writeBigUInt64LE(BigInt(padded));
  text.copy(bytes, 8);
  return { bytes, tensors, dataBytes: at };
}
