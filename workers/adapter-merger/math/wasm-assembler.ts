/** Enough of the WebAssembly binary format to write one-function modules with SIMD by hand. */

export type Code = readonly number[];

/** Value types by their codes in the binary format. */
export const I32 = 0x7f;
export const F32 = 0x7d;
export const V128 = 0x7b;

function unsigned(value: number): Code {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
  } while (rest !== 0);
  return bytes;
}

function signed(value: number): Code {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    const isLast = (rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0);
    bytes.push(isLast ? low : low | 0x80);
    if (isLast) return bytes;
  }
}

function vector(items: readonly Code[]): Code {
  return [...unsigned(items.length), ...items.flat()];
}

function section(id: number, content: Code): Code {
  return [id, ...unsigned(content.length), ...content];
}

function text(value: string): Code {
  const bytes = [...new TextEncoder().encode(value)];
  return [...unsigned(bytes.length), ...bytes];
}

function simd(opcode: number): Code {
  return [0xfd, ...unsigned(opcode)];
}

export const get = (local: number): Code => [0x20, ...unsigned(local)];
export const set = (local: number): Code => [0x21, ...unsigned(local)];
export const constant = (value: number): Code => [0x41, ...signed(value)];
export const add: Code = [0x6a];
export const multiply: Code = [0x6c];
export const isBelow: Code = [0x49];
export const addFloats: Code = simd(0xe4);
export const multiplyFloats: Code = simd(0xe6);
export const and: Code = simd(0x4e);
/** The first operand without the bits of the second. */
export const andNot: Code = simd(0x4f);
export const xor: Code = simd(0x51);
export const isNotEqualFloats: Code = simd(0x42);
/** Per 32-bit lane, by the number on the stack. */
export const shiftRightSigned: Code = simd(0xac);
/** One float into all four lanes. */
export const splat: Code = simd(0x13);
export const zeros: Code = [...simd(0x0c), ...Array.from({ length: 16 }, () => 0)];
/** Loads 16 bytes; an alignment of 4 bytes is promised. */
export const loadFloats = (offset: number): Code => [...simd(0x00), 2, ...unsigned(offset)];
export const storeFloats = (offset: number): Code => [...simd(0x0b), 2, ...unsigned(offset)];
/** Loads one float into all four lanes. */
export const loadSplat = (offset: number): Code => [...simd(0x09), 2, ...unsigned(offset)];

/** Adds `amount` to a local. */
export function advance(local: number, amount: Code): Code {
  return [...get(local), ...amount, ...add, ...set(local)];
}

/** Runs `body` while `condition` leaves a non-zero number; tested before the first run. */
export function whileLoop(condition: Code, body: Code): Code {
  const loop = [0x03, 0x40, ...body, ...condition, 0x0d, 0x00, 0x0b];
  return [...condition, 0x04, 0x40, ...loop, 0x0b];
}

export interface FunctionSpec {
  readonly name: string;
  readonly parameters: readonly number[];
  readonly locals: readonly number[];
  readonly body: Code;
}

const MAGIC: Code = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

/** A module that imports its memory as `env.memory` and exports one function. */
export function assemble({
  name,
  parameters,
  locals,
  body,
}: FunctionSpec): Uint8Array<ArrayBuffer> {
  const type = [0x60, ...vector(parameters.map((code) => [code])), 0];
  const memory = [...text("env"), ...text("memory"), 0x02, 0x00, 0x01];
  const code = [...vector(locals.map((local) => [1, local])), ...body, 0x0b];
  return Uint8Array.from([
    ...MAGIC,
    ...section(1, vector([type])),
    ...section(2, vector([memory])),
    ...section(3, vector([[0]])),
    ...section(7, vector([[...text(name), 0x00, 0x00]])),
    ...section(10, vector([[...unsigned(code.length), ...code]])),
  ]);
}
