import { createHash } from "node:crypto";

/** 64 bits that name one independent stream of random numbers. */
export interface StreamKey {
  readonly low: number;
  readonly high: number;
}

/**
 * The stream of (seed, LoRA adapter, tensor). `adapter` is the content hash of its weights, so the
 * numbers do not depend on the order of the inputs, on threads or on the language.
 */
export function streamKey(seed: number, adapter: string, tensor: string): StreamKey {
  const digest = createHash("sha256").update(JSON.stringify([seed, adapter, tensor])).digest();
  return { low: digest.readUInt32LE(0), high: digest.readUInt32LE(4) };
}

const PARITY = 0x1bd11bda;

/**
 * Threefry-2x32 with 20 rounds: a counter and a key give two 32-bit words. Written to `out[0..1]`.
 *
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
 */
export function threefry(key: StreamKey, counter: StreamKey, out: Uint32Array): void {
  const k0 = key.low | 0;
  const k1 = key.high | 0;
  const k2 = PARITY ^ k0 ^ k1;
  let x = (counter.low + k0) | 0;
  let y = (counter.high + k1) | 0;
  for (let group = 0; group < 5; group += 1) {
    const isOdd = (group & 1) === 1;
    x = (x + y) | 0;
    y = rotate(y, isOdd ? 17 : 13) ^ x;
    x = (x + y) | 0;
    y = rotate(y, isOdd ? 29 : 15) ^ x;
    x = (x + y) | 0;
    y = rotate(y, isOdd ? 16 : 26) ^ x;
    x = (x + y) | 0;
    y = rotate(y, isOdd ? 24 : 6) ^ x;
    const turn = (group + 1) % 3;
    x = (x + pick(turn, k0, k1, k2)) | 0;
    y = (y + pick((turn + 1) % 3, k0, k1, k2) + group + 1) | 0;
  }
  out[0] = x;
  out[1] = y;
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

function pick(index: number, k0: number, k1: number, k2: number): number {
  if (index === 0) return k0;
  return index === 1 ? k1 : k2;
}

/** Fills `out` with the words of elements `start .. start + out.length` of a stream. */
export function randomWords(key: StreamKey, start: number, out: Uint32Array): void {
  const pair = new Uint32Array(2);
  let block = -1;
  for (let i = 0; i < out.length; i += 1) {
    const element = start + i;
    const wanted = Math.floor(element / 2);
    if (wanted !== block) {
      block = wanted;
      threefry(key, { low: block >>> 0, high: Math.floor(block / 2 ** 32) }, pair);
    }
    out[i] = pair[element & 1] ?? 0;
  }
}

/** Standard normal numbers by Box-Muller from one stream. */
export function fillNormal(key: StreamKey, out: Float32Array): void {
  const words = new Uint32Array(2);
  for (let i = 0; i < out.length; i += 2) {
    threefry(key, { low: i >>> 1, high: 0 }, words);
    const radius = Math.sqrt(-2 * Math.log(((words[0] ?? 0) + 1) / 2 ** 32));
    const angle = (2 * Math.PI * (words[1] ?? 0)) / 2 ** 32;
    out[i] = radius * Math.cos(angle);
    if (i + 1 < out.length) out[i + 1] = radius * Math.sin(angle);
  }
}
