/** HTML that may stand in a page as it is. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Part = string | number | Markup | null | undefined | false | readonly Part[];

/** A piece of HTML or SVG; whatever is put into it is text, unless it is markup itself. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  return new Markup(strings.reduce((text, string, at) => text + render(parts[at - 1]) + string));
}

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

function render(part: Part): string {
  if (part instanceof Markup) return part.text;
  if (part === null || part === undefined || part === false) return "";
  if (typeof part === "number") return Number.isInteger(part) ? String(part) : part.toFixed(2);
  if (typeof part === "string") return escapeText(part);
  return part.map(render).join("");
}

function escapeText(text: string): string {
  return (
    text
      // oxlint-disable-next-line no-control-regex -- XML has no form for these, escaped or not
      .replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/gu, "\ufffd")
      .replaceAll(/[&<>"']/gu, (char) => ESCAPES[char] ?? char)
  );
}
