const NEWLINE = 0x0a;

/** Whole lines, each with its newline, in memory of their own, so that it can go to a thread. */
export interface LineBlock {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly count: number;
}

/** One block of the first `count` lines of these parts, each of which holds whole lines. */
export function joinLines(parts: readonly Uint8Array[], count: number): LineBlock {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  const end = endOfLine(bytes, count);
  return { bytes: end === bytes.length ? bytes : bytes.slice(0, end), count };
}

/** Byte by byte: lines may be as short as one byte, and a search each would cost more than that. */
export function countLines(bytes: Uint8Array): number {
  let count = 0;
  // oxlint-disable-next-line unicorn/no-for-loop, typescript/prefer-for-of -- an iterator costs several times as much
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] === NEWLINE) count += 1;
  return count;
}

/** Where the line after the first `count` lines begins. */
function endOfLine(bytes: Uint8Array, count: number): number {
  let at = 0;
  for (let left = count; left > 0; left -= 1) {
    const end = bytes.indexOf(NEWLINE, at);
    if (end === -1) return bytes.length;
    at = end + 1;
  }
  return at;
}

/** Each line without its newline; views of `bytes`. */
export function* splitLines(bytes: Uint8Array): Generator<Uint8Array> {
  for (let start = 0; start < bytes.length;) {
    const found = bytes.indexOf(NEWLINE, start);
    const end = found === -1 ? bytes.length : found;
    yield bytes.subarray(start, end);
    start = end + 1;
  }
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Lines of a tool's output as text: without blank ones, of a line with carriage returns only the
 * last frame, bytes that are not UTF-8 as `\xNN`.
 */
export function outputTexts(bytes: Uint8Array): string[] {
  return textsOf(bytes)
    .map(lastFrame)
    .filter((text) => text !== "");
}

function textsOf(bytes: Uint8Array): readonly string[] {
  try {
    return strict.decode(bytes).split("\n");
  } catch {
    return Array.from(splitLines(bytes), decodeLossless);
  }
}

/** A progress bar redraws its line with carriage returns; only the last picture is worth keeping. */
function lastFrame(text: string): string {
  if (!text.includes("\r")) return text.trim() === "" ? "" : text;
  const frames = text.split("\r").filter((frame) => frame.trim() !== "");
  return frames.at(-1) ?? "";
}

/** Valid UTF-8 as it is; any other byte as `\xNN`, so that nothing is lost. */
export function decodeLossless(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    return decodePiecewise(bytes);
  }
}

function decodePiecewise(bytes: Uint8Array): string {
  const parts: string[] = [];
  let from = 0;
  for (let at = 0; at < bytes.length;) {
    const length = sequenceLength(bytes, at);
    if (length > 0) {
      at += length;
      continue;
    }
    if (from < at) parts.push(strict.decode(bytes.subarray(from, at)));
    parts.push(`\\x${(bytes[at] ?? 0).toString(16).padStart(2, "0")}`);
    at += 1;
    from = at;
  }
  parts.push(strict.decode(bytes.subarray(from)));
  return parts.join("");
}

/**
 * Bytes of the well-formed UTF-8 sequence that starts at `at`; 0 if none does.
 *
 * By the table of well-formed byte sequences of the Unicode standard (3-7): the lead byte decides
 * the length and, for four of them, a narrower range of the second byte.
 */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const lead = bytes[at] ?? 0;
  const length = lengthByLead(lead);
  const [low, high] = SECOND_BYTE.get(lead) ?? [0x80, 0xbf];
  for (let index = 1; index < length; index += 1) {
    const byte = bytes[at + index] ?? 0;
    const isGood = index === 1 ? byte >= low && byte <= high : (byte & 0xc0) === 0x80;
    if (!isGood) return 0;
  }
  return length;
}

function lengthByLead(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  if (lead < 0xe0) return 2;
  return lead < 0xf0 ? 3 : 4;
}

/** No overlong forms, no surrogates, nothing beyond U+10FFFF. */
const SECOND_BYTE: ReadonlyMap<number, readonly [low: number, high: number]> = new Map([
  [0xe0, [0xa0, 0xbf]],
  [0xed, [0x80, 0x9f]],
  [0xf0, [0x90, 0xbf]],
  [0xf4, [0x80, 0x8f]],
]);
