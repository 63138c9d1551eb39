/** IEEE half precision of each value, rounded to nearest even. */
export function toFloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i += 1) halves[i] = half(bits[i] ?? 0);
  return halves;
}

function half(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fff_ffff;
  if (magnitude >= 0x7f80_0000) return sign | (magnitude > 0x7f80_0000 ? 0x7e00 : 0x7c00);
  if (magnitude >= 0x477f_f000) return sign | 0x7c00;
  if (magnitude >= 0x3880_0000) {
    return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x3800_0000) >>> 13);
  }
  if (magnitude < 0x3300_0000) return sign;
  const mantissa = (magnitude & 0x7f_ffff) | 0x80_0000;
  const shift = 126 - (magnitude >>> 23);
  const quotient = mantissa >>> shift;
  const remainder = mantissa & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  const isUp = remainder > middle || (remainder === middle && (quotient & 1) === 1);
  return sign | (quotient + (isUp ? 1 : 0));
}

/** Exact values of stored halves. */
export function fromFloat16(halves: Uint16Array, out: Float32Array): void {
  for (let i = 0; i < out.length; i += 1) out[i] = float(halves[i] ?? 0);
}

function float(stored: number): number {
  const sign = stored & 0x8000 ? -1 : 1;
  const exponent = (stored >>> 10) & 0x1f;
  const mantissa = stored & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}
