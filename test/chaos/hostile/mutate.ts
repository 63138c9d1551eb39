import { below, pick } from "../support/random.ts";

const TOKENS = [
  "{}",
  "[",
  "]",
  "{",
  "}",
  '"',
  "\\",
  ",",
  ":",
  "\n",
  "\r\n",
  "null",
  "1e999",
  "-",
  '"__proto__":',
  '"_job_error":',
  "\\u0000",
  "\\ud800",
  "\u0000",
  "\u00ff",
  "\u{1F600}",
].map((token) => Buffer.from(token, "utf8"));

/** One to four random edits: bytes replaced, tokens put in, slices repeated, moved or cut. */
export function mutate(random: () => number, original: Uint8Array): Buffer {
  let bytes = Buffer.from(original);
  for (let edits = 1 + below(random, 4); edits > 0; edits -= 1) bytes = edit(random, bytes);
  return bytes;
}

function edit(random: () => number, bytes: Buffer): Buffer<ArrayBuffer> {
  const at = below(random, bytes.length + 1);
  const to = Math.min(bytes.length, at + below(random, 64));
  const [before, slice, after] = [
    bytes.subarray(0, at),
    bytes.subarray(at, to),
    bytes.subarray(to),
  ];
  switch (below(random, 6)) {
    case 0:
      return Buffer.concat([before, after]);
    case 1:
      return Buffer.concat([before, slice, slice, after]);
    case 2:
      return Buffer.concat([before, pick(random, TOKENS), slice, after]);
    case 3:
      return Buffer.concat([after, slice, before]);
    case 4:
      return Buffer.concat([before, Buffer.from([below(random, 256)]), after]);
    default:
      return Buffer.from(before);
  }
}

/** The bytes in pieces, as a socket may deliver them. */
export function pieces(random: () => number, bytes: Buffer): Buffer[] {
  const most = pick(random, [1, 7, 64, 65_536]);
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + below(random, most);
    parts.push(bytes.subarray(at, end));
    at = end;
  }
  return parts;
}
