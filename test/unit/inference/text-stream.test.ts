import type { LlamaModel, Token } from "node-llama-cpp";
import { describe, expect, test } from "vitest";
import * as fc from "fast-check";
import { TextStream } from "../../../workers/inference/llama-cpp/text-stream.ts";

/** A vocabulary of bytes: token n is byte n. */
const bytes = {
  detokenize: (tokens: readonly number[]) => Buffer.from(tokens).toString("utf8"),
} as unknown as LlamaModel;

function run(text: string, stop: readonly string[]): { pieces: string[]; stream: TextStream } {
  const stream = new TextStream(bytes, stop, []);
  const pieces: string[] = [];
  for (const byte of Buffer.from(text, "utf8")) {
    pieces.push(stream.push(byte as Token));
    if (stream.stopped !== undefined) break;
  }
  pieces.push(stream.end());
  return { pieces: pieces.filter((piece) => piece !== ""), stream };
}

describe("text that is made token by token", () => {
  test("is never half a character", () => {
    const { pieces } = run("aä€😀b", []);
    expect(pieces).toEqual(["a", "ä", "€", "😀", "b"]);
  });

  test("holds back what may become a stop text, and gives it when it does not", () => {
    expect(run("one STOX two", ["STOP"]).pieces.join("")).toBe("one STOX two");
    const { pieces, stream } = run("one STOP two", ["STOP"]);
    expect(pieces.join("")).toBe("one ");
    expect(stream.stopped).toBe("STOP");
    for (const piece of pieces) expect(piece).not.toContain("S");
  });

  test("is the text up to its first stop text, whatever the texts are", () => {
    const word = fc.string({ unit: fc.constantFrom("a", "b", "ß"), minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom("a", "b", "ß"), maxLength: 30 }),
        fc.array(word, { maxLength: 3 }),
        (text, stops) => {
          const { pieces, stream } = run(text, stops);
          expect(pieces.join("")).toBe(stream.text);
          // The stop text that is complete first ends the text.
          const ends = stops.flatMap((stop) => {
            const at = text.indexOf(stop);
            return at === -1 ? [] : [{ at, end: at + stop.length }];
          });
          const first = Math.min(...ends.map(({ end }) => end));
          const cut = Math.min(...ends.filter(({ end }) => end === first).map(({ at }) => at));
          expect(stream.text).toBe(ends.length === 0 ? text : text.slice(0, cut));
        },
      ),
    );
  });
});
