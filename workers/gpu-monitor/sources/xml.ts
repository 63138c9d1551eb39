/** An element of a document without namespaces, as nvidia-smi writes them. */
export interface XmlElement {
  readonly name: string;
  /** Its own text, trimmed, entities resolved. */
  readonly text: string;
  readonly children: readonly XmlElement[];
}

interface OpenElement {
  readonly name: string;
  text: string;
  readonly children: XmlElement[];
}

const MAX_DEPTH = 32;
/** Declaration, comment, closing tag, opening tag, or text up to the next tag. */
const TOKEN = /<[!?][^>]*>|<\/(?<end>[\w.-]+)\s*>|<(?<start>[\w.-]+)[^<>]*>|(?<text>[^<]+)/gu;
const ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
};

/** The root element, or undefined for anything that is not one well-nested document. */
export function parseXml(document: string): XmlElement | undefined {
  const top: OpenElement = { name: "", text: "", children: [] };
  const open = [top];
  for (const { groups = {}, 0: token } of document.matchAll(TOKEN)) {
    if (groups["text"] !== undefined) addText(open, groups["text"]);
    if (groups["start"] !== undefined) {
      if (open.length > MAX_DEPTH) return undefined;
      open.push({ name: groups["start"], text: "", children: [] });
    }
    const closed = groups["end"] ?? (token.endsWith("/>") ? groups["start"] : undefined);
    if (closed !== undefined && !closeElement(open, closed)) return undefined;
  }
  const [root, ...others] = top.children;
  return open.length === 1 && others.length === 0 ? root : undefined;
}

function addText(open: readonly OpenElement[], text: string): void {
  const current = open.at(-1);
  if (current !== undefined) current.text += text;
}

function closeElement(open: OpenElement[], name: string): boolean {
  const closed = open.pop();
  const parent = open.at(-1);
  if (closed?.name !== name || parent === undefined) return false;
  parent.children.push({ ...closed, text: unescape(closed.text.trim()) });
  return true;
}

function unescape(text: string): string {
  return text.replaceAll(/&(?<name>amp|lt|gt|quot|apos);/gu, (all, name: string) => {
    return ENTITIES[name] ?? all;
  });
}

/** The first element at a path below `element`. */
export function find(
  element: XmlElement | undefined,
  ...path: readonly string[]
): XmlElement | undefined {
  return path.reduce<XmlElement | undefined>(
    (current, name) => current?.children.find((child) => child.name === name),
    element,
  );
}
