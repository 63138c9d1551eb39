import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { encodeFloats, elementBytes, isFloatDtype } from "./dtype.ts";
import { encodeHeader, type TensorInfo, type TensorSpec } from "./header.ts";

const CHUNK_ELEMENTS = 1 << 18;

/** Where the tensors of a file under construction lie; plain data, so that threads can share it. */
export interface FileLayout {
  readonly path: string;
  readonly dataStart: number;
  readonly sizeBytes: number;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/**
 * Creates `path` (which must not exist) with its header and full length. Any number of
 * {@link TensorSink}s may then fill it, in any order.
 */
export function createFile(
  path: string,
  specs: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>>,
): FileLayout {
  const { bytes, tensors, dataBytes } = encodeHeader(specs, metadata);
  const descriptor = openSync(path, "wx", 0o644);
  try {
    writeAll(descriptor, bytes, 0);
    ftruncateSync(descriptor, bytes.length + dataBytes);
  } finally {
    closeSync(descriptor);
  }
  return { path, dataStart: bytes.length, sizeBytes: bytes.length + dataBytes, tensors };
}

/** Writes tensors of one file under construction by position. Own it with `using`. */
export class TensorSink implements Disposable {
  readonly #layout: FileLayout;
  readonly #descriptor: number;
  readonly #scratch = new Uint16Array(CHUNK_ELEMENTS);

  constructor(layout: FileLayout) {
    this.#layout = layout;
    this.#descriptor = openSync(layout.path, "r+");
  }

  /** Writes `values` at element `from` of a float tensor, rounded to its dtype. */
  writeFloats(name: string, from: number, values: Float32Array): void {
    const info = this.#tensor(name);
    const { dtype } = info;
    if (!isFloatDtype(dtype)) throw new TypeError(`Tensor "${name}" is ${dtype}`);
    const width = elementBytes(dtype);
    for (let done = 0; done < values.length; done += CHUNK_ELEMENTS) {
      const part = values.subarray(done, done + CHUNK_ELEMENTS);
      this.writeBytes(name, (from + done) * width, encodeFloats(dtype, part, this.#scratch));
    }
  }

  writeBytes(name: string, from: number, bytes: Uint8Array): void {
    const info = this.#tensor(name);
    if (info.start + from + bytes.length > info.end) {
      throw new RangeError(`Write past the end of tensor "${name}"`);
    }
    writeAll(this.#descriptor, bytes, this.#layout.dataStart + info.start + from);
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }

  #tensor(name: string): TensorInfo {
    const info = this.#layout.tensors.get(name);
    if (info === undefined) throw new TypeError(`The output has no tensor "${name}"`);
    return info;
  }
}

export function writeAll(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(descriptor, bytes, done, bytes.length - done, position + done);
  }
}

export function syncPath(path: string): void {
  const descriptor = openSync(path, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
