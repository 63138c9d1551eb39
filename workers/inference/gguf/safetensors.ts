import { open, readFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { z } from "cjm-substrate/worker";
import { errnoOf, refuse } from "../fault.ts";
import { fromFloat16 } from "./float16.ts";

const HEADER_MAX_BYTES = 64 * 1024 * 1024;
const FLOAT_BYTES = { F32: 4, F16: 2, BF16: 2 } as const;

const tensorSchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().nonnegative()),
  data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
});
type Entry = z.output<typeof tensorSchema>;
const headerSchema = z.record(z.string(), z.unknown());
const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

/** A tensor of a checkpoint; its values are read when they are asked for. */
export interface SourceTensor {
  readonly name: string;
  /** Slowest dimension first, as PyTorch has it. */
  readonly shape: readonly number[];
  readonly read: () => Promise<Float32Array>;
}

/**
 * The tensors of a safetensors checkpoint: one file, or shards named by an index beside them.
 *
 * @param name the file; `<name>.index.json` names its shards
 * @throws {CjmError} `model_missing`, `model_invalid`
 */
export async function readCheckpoint(
  folder: string,
  name = "model.safetensors",
): Promise<ReadonlyMap<string, SourceTensor>> {
  const index = await readIndex(join(folder, `${name}.index.json`));
  const files = index === undefined ? [name] : [...new Set(index)].sort();
  const tensors = new Map<string, SourceTensor>();
  for (const file of files) {
    for (const tensor of await readFileTensors(join(folder, file)))
      tensors.set(tensor.name, tensor);
  }
  return tensors;
}

async function readIndex(path: string): Promise<string[] | undefined> {
  try {
    const { weight_map: map } = indexSchema.parse(JSON.parse(await readFile(path, "utf8")));
    return Object.values(map);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw refuse("model_invalid", `${path} is no index of a checkpoint`, { cause: error });
  }
}

async function readFileTensors(path: string): Promise<SourceTensor[]> {
  await using file = await openFile(path);
  const { size } = await file.stat();
  const length = size < 8 ? 0 : Number((await readAt(file, 0, 8)).readBigUInt64LE());
  if (length < 2 || length > Math.min(HEADER_MAX_BYTES, size - 8)) {
    throw refuse("model_invalid", `${path} is no safetensors file, or is truncated`);
  }
  const header = parseHeader(path, (await readAt(file, 8, length)).toString("utf8"));
  const start = 8 + length;
  return Object.entries(header).map(([name, entry]) =>
    tensorOf(path, { name, ...entry }, { start, size }),
  );
}

function parseHeader(path: string, json: string): Readonly<Record<string, Entry>> {
  try {
    const { __metadata__: _, ...tensors } = headerSchema.parse(JSON.parse(json));
    return z.record(z.string(), tensorSchema).parse(tensors);
  } catch (error) {
    throw refuse("model_invalid", `${path} has no readable safetensors header`, { cause: error });
  }
}

function tensorOf(
  path: string,
  tensor: Entry & { readonly name: string },
  { start, size }: { readonly start: number; readonly size: number },
): SourceTensor {
  const { name, dtype, shape, data_offsets: offsets } = tensor;
  const count = shape.reduce((product, length) => product * length, 1);
  const isFloat = dtype === "F32" || dtype === "F16" || dtype === "BF16";
  const bytes = offsets[1] - offsets[0];
  if (start + offsets[1] > size || (isFloat && bytes !== count * FLOAT_BYTES[dtype])) {
    throw refuse("model_invalid", `${path} is truncated or wrong at tensor ${name}`);
  }
  return {
    name,
    shape,
    read: async () => {
      if (!isFloat) throw refuse("model_unsupported", `${path}: ${name} has dtype ${dtype}`);
      await using file = await openFile(path);
      return decode(dtype, await readAt(file, start + offsets[0], bytes), count);
    },
  };
}

function decode(dtype: keyof typeof FLOAT_BYTES, stored: Buffer, count: number): Float32Array {
  const values = new Float32Array(count);
  if (dtype === "F32") {
    new Uint8Array(values.buffer).set(stored);
    return values;
  }
  const halves = new Uint16Array(count);
  new Uint8Array(halves.buffer).set(stored);
  if (dtype === "F16") {
    fromFloat16(halves, values);
    return values;
  }
  const bits = new Uint32Array(values.buffer);
  for (let i = 0; i < count; i += 1) bits[i] = (halves[i] ?? 0) << 16;
  return values;
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (error) {
    throw refuse("model_missing", `${path} cannot be opened: ${errnoOf(error)}`, { cause: error });
  }
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, length - done, position + done);
    if (bytesRead === 0) throw refuse("model_invalid", "A checkpoint ended while it was read");
    done += bytesRead;
  }
  return buffer;
}
