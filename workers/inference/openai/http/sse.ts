/** One server-sent event: its type, "message" where none was named, and its data. */
export interface ServerEvent {
  readonly type: string;
  readonly data: string;
}

/**
 * Server-sent events of a stream of lines, after the HTML Standard, section "Interpreting an event
 * stream". Comments, `id` and `retry` are skipped; an event without its empty line is dropped.
 */
export async function* readServerEvents(
  lines: AsyncIterable<string>,
): AsyncGenerator<ServerEvent, void, void> {
  let type = "";
  let data: string[] = [];
  let isFirst = true;
  for await (const raw of lines) {
    const line = isFirst && raw.startsWith("\uFEFF") ? raw.slice(1) : raw;
    isFirst = false;
    if (line === "") {
      if (data.length > 0) yield { type: type === "" ? "message" : type, data: data.join("\n") };
      type = "";
      data = [];
      continue;
    }
    const [name, value] = splitField(line);
    if (name === "data") data.push(value);
    else if (name === "event") type = value;
  }
}

function splitField(line: string): [string, string] {
  const colon = line.indexOf(":");
  if (colon === -1) return [line, ""];
  const value = line.slice(colon + 1);
  return [line.slice(0, colon), value.startsWith(" ") ? value.slice(1) : value];
}
