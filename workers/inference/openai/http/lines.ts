import { failure } from "../failure.ts";

/** Limits of a streamed body. */
export interface StreamLimits {
  /** Longest line, in characters. */
  readonly maxLineLength: number;
  /** Longest body, in bytes. */
  readonly maxBytes: number;
}

/**
 * Lines of a UTF-8 body as they become whole; ends of line are LF, CR or CRLF, as in server-sent
 * events. An unfinished last line is not yielded: its end never came.
 *
 * @throws {CjmError} `response_too_large` beyond a limit, before more of it is kept.
 */
export async function* readLines(
  body: AsyncIterable<Uint8Array>,
  limits: StreamLimits,
): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder("utf-8");
  let bytes = 0;
  let rest = "";
  let isAfterCr = false;
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    if (bytes > limits.maxBytes) throw tooLarge(`over ${limits.maxBytes} bytes`);
    let text = decoder.decode(chunk, { stream: true });
    if (text === "") continue;
    if (isAfterCr && text.startsWith("\n")) text = text.slice(1);
    isAfterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/u);
    lines[0] = rest + (lines[0] ?? "");
    rest = lines.pop() ?? "";
    if (rest.length > limits.maxLineLength) throw lineTooLong(limits);
    for (const line of lines) {
      if (line.length > limits.maxLineLength) throw lineTooLong(limits);
      yield line;
    }
  }
}

function lineTooLong(limits: StreamLimits): Error {
  return tooLarge(`a line of over ${limits.maxLineLength} characters`);
}

function tooLarge(what: string): Error {
  return failure("response_too_large", `The server's stream is too large: ${what}`);
}
