/**
 * The GGUF container, version 3: magic, counts, key-value metadata, tensor infos, aligned data.
 * Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export const MAGIC = 0x46554747;
export const VERSION = 3;
export const DEFAULT_ALIGNMENT = 32;

/** Number of each metadata type in the file. */
export const VALUE_TYPES = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;
export type ValueType = keyof typeof VALUE_TYPES;
export type ScalarType = Exclude<ValueType, "array">;
export type Scalar = number | bigint | boolean | string;

export type GgufValue =
  | { readonly type: ScalarType; readonly value: Scalar }
  | { readonly type: "array"; readonly of: ScalarType; readonly items: readonly Scalar[] };
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** The tensor types this worker writes. */
export const FLOAT_TYPES = { F32: 0, F16: 1 } as const;
export type FloatType = keyof typeof FLOAT_TYPES;

/** Name, elements per block and bytes per block of every tensor type of ggml. */
export const TENSOR_TYPES: ReadonlyMap<number, readonly [string, number, number]> = new Map([
  [0, ["F32", 1, 4]],
  [1, ["F16", 1, 2]],
  [2, ["Q4_0", 32, 18]],
  [3, ["Q4_1", 32, 20]],
  [6, ["Q5_0", 32, 22]],
  [7, ["Q5_1", 32, 24]],
  [8, ["Q8_0", 32, 34]],
  [9, ["Q8_1", 32, 36]],
  [10, ["Q2_K", 256, 84]],
  [11, ["Q3_K", 256, 110]],
  [12, ["Q4_K", 256, 144]],
  [13, ["Q5_K", 256, 176]],
  [14, ["Q6_K", 256, 210]],
  [15, ["Q8_K", 256, 292]],
  [16, ["IQ2_XXS", 256, 66]],
  [17, ["IQ2_XS", 256, 74]],
  [18, ["IQ3_XXS", 256, 98]],
  [19, ["IQ1_S", 256, 50]],
  [20, ["IQ4_NL", 32, 18]],
  [21, ["IQ3_S", 256, 110]],
  [22, ["IQ2_S", 256, 82]],
  [23, ["IQ4_XS", 256, 136]],
  [24, ["I8", 1, 1]],
  [25, ["I16", 1, 2]],
  [26, ["I32", 1, 4]],
  [27, ["I64", 1, 8]],
  [28, ["F64", 1, 8]],
  [29, ["IQ1_M", 256, 56]],
  [30, ["BF16", 1, 2]],
  [34, ["TQ1_0", 256, 54]],
  [35, ["TQ2_0", 256, 66]],
  [39, ["MXFP4", 32, 17]],
]);

export interface TensorInfo {
  readonly name: string;
  /** Fastest dimension first, the reverse of PyTorch's order. */
  readonly dimensions: readonly number[];
  readonly type: string;
  /** From the start of the file. */
  readonly start: number;
  readonly bytes: number;
}

export const u32 = (value: number): GgufValue => ({ type: "uint32", value });
export const f32 = (value: number): GgufValue => ({ type: "float32", value });
export const text = (value: string): GgufValue => ({ type: "string", value });
export const bool = (value: boolean): GgufValue => ({ type: "bool", value });
export const list = (of: ScalarType, items: readonly Scalar[]): GgufValue => ({
  type: "array",
  of,
  items,
});

export function align(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment;
}
