import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { decodeFloats, elementBytes, isFloatDtype } from "./dtype.ts";
import {
  elementCount,
  HEADER_MAX_BYTES,
  invalid,
  parseHeader,
  type SafetensorsHeader,
  type TensorInfo,
} from "./header.ts";

const LENGTH_BYTES = 8;
const CHUNK_ELEMENTS = 1 << 18;

/**
 * One open safetensors file: its header is checked completely on opening, tensors are read by
 * position and only as far as they are asked for.
 *
 * Own it with `using`. Reads are synchronous: they run on merge threads, whose only work they are.
 */
export class SafetensorsFile implements Disposable {
  readonly path: string;
  readonly header: SafetensorsHeader;
  /** Where the data begins, in bytes from the start of the file. */
  readonly dataStart: number;
  readonly sizeBytes: number;
  readonly #descriptor: number;
  #raw = new Uint8Array(0);

  private constructor(
    path: string,
    descriptor: number,
    parsed: { header: SafetensorsHeader; dataStart: number; sizeBytes: number },
  ) {
    this.path = path;
    this.#descriptor = descriptor;
    this.header = parsed.header;
    this.dataStart = parsed.dataStart;
    this.sizeBytes = parsed.sizeBytes;
  }

  /** @throws {MergeFault} `FILE_INVALID` if any rule of the format is broken */
  static open(path: string): SafetensorsFile {
    const descriptor = openSync(path, "r");
    try {
      return new SafetensorsFile(path, descriptor, readHeader(descriptor, path));
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
  }

  tensor(name: string): TensorInfo {
    const info = this.header.tensors.get(name);
    if (info === undefined) invalid("missing_tensor", `${this.path} has no tensor "${name}"`, name);
    return info;
  }

  /** Reads elements `from .. from + out.length` of a float tensor, widened to float32. */
  readFloats(info: TensorInfo, from: number, out: Float32Array): void {
    const { dtype } = info;
    if (!isFloatDtype(dtype)) invalid("dtype", `Tensor "${info.name}" is ${dtype}`, info.name);
    const width = elementBytes(dtype);
    if (from < 0 || info.start + (from + out.length) * width > info.end) {
      throw new RangeError(`Read past the end of tensor "${info.name}"`);
    }
    for (let done = 0; done < out.length; done += CHUNK_ELEMENTS) {
      const part = out.subarray(done, done + CHUNK_ELEMENTS);
      const at = this.dataStart + info.start + (from + done) * width;
      if (dtype === "F32") {
        this.#fill(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), at, info);
      } else {
        const raw = this.#scratch(part.length * width);
        this.#fill(raw, at, info);
        decodeFloats(dtype, raw, part);
      }
    }
  }

  /** Reads stored bytes `from .. from + out.length` of a tensor of any dtype. */
  readBytes(info: TensorInfo, from: number, out: Uint8Array): void {
    if (from < 0 || info.start + from + out.length > info.end) {
      throw new RangeError(`Read past the end of tensor "${info.name}"`);
    }
    this.#fill(out, this.dataStart + info.start + from, info);
  }

  /** A whole tensor, widened to float32. */
  floats(name: string): Float32Array<ArrayBuffer> {
    const info = this.tensor(name);
    const out = new Float32Array(elementCount(info.shape));
    this.readFloats(info, 0, out);
    return out;
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }

  #scratch(bytes: number): Uint8Array {
    if (this.#raw.length < bytes) this.#raw = new Uint8Array(bytes);
    return this.#raw.subarray(0, bytes);
  }

  #fill(target: Uint8Array, position: number, info: TensorInfo): void {
    for (let done = 0; done < target.length; ) {
      const got = readSync(this.#descriptor, target, done, target.length - done, position + done);
      if (got === 0) invalid("truncated", `${this.path} shrank while it was read`, info.name);
      done += got;
    }
  }
}

function readHeader(
  descriptor: number,
  path: string,
): { header: SafetensorsHeader; dataStart: number; sizeBytes: number } {
  const stat = fstatSync(descriptor);
  if (!stat.isFile()) invalid("not_a_file", `${path} is not a regular file`);
  const lengthBytes = Buffer.alloc(LENGTH_BYTES);
  if (readSync(descriptor, lengthBytes, 0, LENGTH_BYTES, 0) < LENGTH_BYTES) {
    invalid("truncated", `${path} is shorter than a header length`);
  }
  const declared = lengthBytes.readBigUInt64LE();
  if (declared > BigInt(HEADER_MAX_BYTES)) {
    invalid("header_too_large", `${path} declares a header of ${declared} bytes`);
  }
  const headerBytes = Number(declared);
  const dataStart = LENGTH_BYTES + headerBytes;
  if (dataStart > stat.size) invalid("truncated", `${path} ends inside its header`);
  const raw = Buffer.alloc(headerBytes);
  if (readSync(descriptor, raw, 0, headerBytes, LENGTH_BYTES) < headerBytes) {
    invalid("truncated", `${path} ends inside its header`);
  }
  return { header: parseHeader(decode(raw, path), stat.size - dataStart), dataStart, sizeBytes: stat.size };
}

function decode(raw: Buffer, path: string): string {
  if (raw[0] !== 0x7b) invalid("header", `The header of ${path} does not begin with "{"`);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
  } catch {
    return invalid("header", `The header of ${path} is not UTF-8`);
  }
}
