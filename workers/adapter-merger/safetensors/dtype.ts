/** Bytes per element of every dtype whose elements are whole bytes. */
const ELEMENT_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
} as const;

export type Dtype = keyof typeof ELEMENT_BYTES;
/** The dtypes whose tensors can be merged; the others are only passed through. */
export type FloatDtype = "F32" | "F16" | "BF16";

export function isDtype(value: string): value is Dtype {
  return Object.hasOwn(ELEMENT_BYTES, value);
}

export function elementBytes(dtype: Dtype): number {
  return ELEMENT_BYTES[dtype];
}

export function isFloatDtype(dtype: string): dtype is FloatDtype {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16";
}

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

function bitsOf(value: number): number {
  scratchFloat[0] = value;
  return scratchBits[0] ?? 0;
}

/** Upper half of a float32 rounded to nearest even; a NaN stays a NaN. */
function bfloat16FromBits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return ((bits >>> 16) | 0x40) & 0xffff;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** IEEE half of a float32 bit pattern, rounded to nearest even. */
function float16FromBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
  }
  if (magnitude < 0x33000000) return sign;
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - (magnitude >>> 23);
  const quotient = mantissa >>> shift;
  const remainder = mantissa & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  const up = remainder > half || (remainder === half && (quotient & 1) === 1);
  return sign | (quotient + (up ? 1 : 0));
}

function float16ToNumber(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

let float16Table: Float32Array | undefined;

function float16Values(): Float32Array {
  float16Table ??= Float32Array.from({ length: 65_536 }, (_, half) => float16ToNumber(half));
  return float16Table;
}

/** Fills `out` with the values of `out.length` stored elements; widening is exact. */
export function decodeFloats(dtype: FloatDtype, stored: Uint8Array, out: Float32Array): void {
  const count = out.length;
  if (dtype === "F32") {
    new Uint8Array(out.buffer, out.byteOffset, count * 4).set(stored.subarray(0, count * 4));
    return;
  }
  const halves = new Uint16Array(stored.buffer, stored.byteOffset, count);
  if (dtype === "BF16") {
    const bits = new Uint32Array(out.buffer, out.byteOffset, count);
    for (let i = 0; i < count; i += 1) bits[i] = (halves[i] ?? 0) << 16;
    return;
  }
  const table = float16Values();
  for (let i = 0; i < count; i += 1) out[i] = table[halves[i] ?? 0] ?? 0;
}

/** The stored form of `values`, rounded to nearest even; a view of `scratch` or of `values`. */
export function encodeFloats(
  dtype: FloatDtype,
  values: Float32Array,
  scratch: Uint16Array,
): Uint8Array {
  const count = values.length;
  if (dtype === "F32") return new Uint8Array(values.buffer, values.byteOffset, count * 4);
  const bits = new Uint32Array(values.buffer, values.byteOffset, count);
  const convert = dtype === "BF16" ? bfloat16FromBits : float16FromBits;
  for (let i = 0; i < count; i += 1) scratch[i] = convert(bits[i] ?? 0);
  return new Uint8Array(scratch.buffer, scratch.byteOffset, count * 2);
}

/** Rounds every value to the nearest one that `dtype` can hold. */
export function roundTo(dtype: FloatDtype, values: Float32Array): void {
  if (dtype === "F32") return;
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  if (dtype === "BF16") {
    for (let i = 0; i < bits.length; i += 1) bits[i] = bfloat16FromBits(bits[i] ?? 0) << 16;
    return;
  }
  const table = float16Values();
  for (let i = 0; i < bits.length; i += 1) {
    values[i] = table[float16FromBits(bits[i] ?? 0)] ?? 0;
  }
}

/** One number rounded to `dtype`. */
export function roundNumber(dtype: FloatDtype, value: number): number {
  if (dtype === "F32") return Math.fround(value);
  const bits = bitsOf(value);
  if (dtype === "F16") return float16Values()[float16FromBits(bits)] ?? 0;
  scratchBits[0] = bfloat16FromBits(bits) << 16;
  return scratchFloat[0] ?? 0;
}
