/**
 * A function that replaces every occurrence of these values by `[redacted]`.
 *
 * Covers the value as it is, as a JSON string and as a URI component holds it. Longer values go
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
  return [value, JSON.stringify(value).slice(1, -1), encodeURIComponent(value.toWellFormed())];
}

function escapeForRegExp(text: string): string {
  return text.replaceAll(/[\^$.*+?()[\]{}|/]/gu, String.raw`\$&`);
}
