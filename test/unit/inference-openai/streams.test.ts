import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readLines } from "../../../workers/inference/openai/http/lines.ts";
import { readServerEvents } from "../../../workers/inference/openai/http/sse.ts";

const LIMITS = { maxLineLength: 1000, maxBytes: 1_000_000 };

async function* chunksOf(...chunks: (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) yield typeof chunk === "string" ? Buffer.from(chunk) : chunk;
}
const linesOf = (...chunks: (string | Uint8Array)[]) =>
  Array.fromAsync(readLines(chunksOf(...chunks), LIMITS));
const eventsOf = (...chunks: string[]) =>
  Array.fromAsync(readServerEvents(readLines(chunksOf(...chunks), LIMITS)));

describe("lines of a stream", () => {
  it("end in LF, CR or CRLF, also where a chunk ends between the two", async () => {
    expect(await linesOf("a\nb\rc\r", "\nd\r\n", "\n", "rest")).toEqual(["a", "b", "c", "d", ""]);
  });

  it("are the same however the bytes are cut", async () => {
    const text = "häß\n🙂\r\n\rlast\n";
    const bytes = Buffer.from(text);
    const whole = await linesOf(text);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: bytes.length })), async (cuts) => {
        const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length];
        const pieces = at.slice(1).map((end, index) => bytes.subarray(at[index], end));
        expect(await linesOf(...pieces)).toEqual(whole);
      }),
      { numRuns: 200 },
    );
  });

  it("are refused when they are too long, finished or not", async () => {
    const long = "x".repeat(1001);
    await expect(linesOf(long)).rejects.toThrow("a line of over 1000 characters");
    await expect(linesOf(`${long}\n`)).rejects.toThrow("a line of over 1000 characters");
    const small = { ...LIMITS, maxBytes: 3 };
    const bytes = Array.fromAsync(readLines(chunksOf("a\n", "b\n"), small));
    await expect(bytes).rejects.toThrow("over 3 bytes");
  });
});

describe("server-sent events", () => {
  it("have one or many lines of data, and a type", async () => {
    expect(await eventsOf("data: a\ndata:b\n\nevent: error\ndata: c\n\n")).toEqual([
      { type: "message", data: "a\nb" },
      { type: "error", data: "c" },
    ]);
  });

  it("leave comments, ids and unfinished events out", async () => {
    expect(await eventsOf("\uFEFFdata: a\n: ping\nid: 7\nretry\n\n\n\ndata: lost")).toEqual([
      { type: "message", data: "a" },
    ]);
  });
});
