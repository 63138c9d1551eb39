const MIN_LINE_LENGTH = 8;
/** Fewer characters of Base64 could be part of anything. */
const MIN_BASE64_LENGTH = 8;

/**
 * A function that replaces every occurrence of these values by `[redacted]`.
 *
 * Covers the value as it is, as a JSON string and as a URI component holds it, inside anything that
 * is encoded as Base64 (either alphabet), and each long line of a value that has several. Longer values go
 * first, so that one value inside another leaves nothing behind.
 */
export function createRedactor(values: readonly string[]): (text: string) => string {
  const forms = new Set(values.flatMap(formsOf));
  if (forms.size === 0) return (text) => text;
  const alternatives = [...forms].sort((a, b) => b.length - a.length).map(escapeForRegExp);
  const pattern = new RegExp(alternatives.join("|"), "gu");
  return (text) => text.replaceAll(pattern, "[redacted]");
}

function formsOf(value: string): readonly string[] {
  if (value === "") return [];
  return [
    value,
    JSON.stringify(value).slice(1, -1),
    encodeURIComponent(value.toWellFormed()),
    ...base64Forms(value),
    ...longLines(value),
  ];
}

/**
 * What Base64 makes of the value at each of the three offsets it can have in a longer text, without
 * the characters at either end that its neighbours have a part in.
 */
function base64Forms(value: string): readonly string[] {
  const bytes = Buffer.byteLength(value);
  const forms = [0, 1, 2].map((offset) => {
    const encoded = Buffer.from(`${"x".repeat(offset)}${value}`).toString("base64");
    const first = Math.ceil((offset * 8) / 6);
    return encoded.slice(first, Math.floor(((offset + bytes) * 8) / 6));
  });
  const long = forms.filter((form) => form.length >= MIN_BASE64_LENGTH);
  const urlSafe = long.map((form) => form.replaceAll("+", "-").replaceAll("/", "_"));
  const escaped = long.map((form) => encodeURIComponent(form));
  return [...long, ...urlSafe, ...escaped];
}

/** Output is handled line by line, so a key of several lines is never seen whole. */
function longLines(value: string): readonly string[] {
  const lines = value.split("\n").map((line) => line.trim());
  return lines.length === 1 ? [] : lines.filter((line) => line.length >= MIN_LINE_LENGTH);
}

function escapeForRegExp(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/]/gu, String.raw`\$&`);
}
