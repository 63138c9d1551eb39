import { CjmError } from "../errors/index.ts";
import { BODY_LIMITS } from "../protocol/index.ts";

/** PLACEHOLDER until the shared scanner lands. */
export async function readJson(body: AsyncIterable<Buffer>): Promise<unknown> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of body) {
    bytes += part.length;
    if (bytes > BODY_LIMITS.bytes)
      throw new CjmError("RESPONSE_TOO_LARGE", `over ${BODY_LIMITS.bytes} bytes`);
    parts.push(part);
  }
  return parse(Buffer.concat(parts));
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new CjmError("RESPONSE_INVALID", `answer is not JSON: ${bytes.toString("utf8", 0, 80)}`, {
      cause: error,
    });
  }
}

export async function* readJsonLines(body: AsyncIterable<Buffer>): AsyncGenerator {
  let rest = Buffer.alloc(0);
  for await (const part of body) {
    rest = Buffer.concat([rest, part]);
    if (rest.length > BODY_LIMITS.bytes)
      throw new CjmError("RESPONSE_TOO_LARGE", `a chunk is over ${BODY_LIMITS.bytes} bytes`);
    for (let end = rest.indexOf(0x0a); end !== -1; end = rest.indexOf(0x0a)) {
      const line = rest.subarray(0, end);
      rest = rest.subarray(end + 1);
      if (line.length > 0) yield parse(line);
    }
  }
  if (rest.length > 0) yield parse(rest);
}
