import { PassThrough } from "node:stream";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ControlStream } from "../../../src/process/control-stream.ts";
import { LineSplitter } from "../../../src/process/line-splitter.ts";
import { RateLimit } from "../../../src/process/rate-limit.ts";
import { readLogFrames, workerFrameSchema } from "../../../src/protocol/index.ts";
import { joinLines, outputTexts } from "../../../src/util/lines.ts";

const SEED = 20260101;
const MAX = 16;

function split(pieces: readonly string[]): string[] {
  const lines: string[] = [];
  const splitter = new LineSplitter(MAX, (block) => {
    expect(block.at(-1)).toBe(0x0a);
    lines.push(...block.toString("utf8").slice(0, -1).split("\n"));
  });
  for (const piece of pieces) splitter.push(Buffer.from(piece));
  splitter.end();
  return lines;
}

describe("a stream of lines", () => {
  test("means the same however it is cut into pieces, and a long line is cut once", () => {
    const line = fc.string({ unit: fc.constantFrom("a", "b", "\r"), maxLength: 3 * MAX });
    fc.assert(
      fc.property(
        fc.array(line, { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat(40), { maxLength: 12 }),
        (lines, cuts) => {
          const text = lines.map((each) => `${each}\n`).join("");
          const pieces: string[] = [];
          let at = 0;
          for (const cut of [...cuts, text.length]) {
            pieces.push(text.slice(at, at + cut));
            at += cut;
          }
          const expected = lines.map((each) =>
            each.length > MAX ? `${each.slice(0, MAX)} [line cut at ${MAX} bytes]` : each,
          );
          expect(split(pieces)).toEqual(expected);
        },
      ),
      { numRuns: 300, seed: SEED },
    );
  });

  test("ends with what has no newline", () => {
    expect(split(["one\ntw", "o"])).toEqual(["one", "two"]);
  });

  test("is text without blank lines and overdrawn frames", () => {
    const bytes = Buffer.from("one\n\n  \n10 %\r50 %\r\ncaf\u00e9\n");
    expect(outputTexts(bytes)).toEqual(["one", "50 %", "caf\u00e9"]);
    expect(outputTexts(Buffer.concat([bytes, Buffer.from([0xff, 0x0a])]))).toEqual([
      "one",
      "50 %",
      "caf\u00e9",
      String.raw`\xff`,
    ]);
  });

  test("of which only the first may pass is shortened", () => {
    const block = joinLines([Buffer.from("a\nb\n"), Buffer.from("c\n")], 2);
    expect(Buffer.from(block.bytes).toString()).toBe("a\nb\n");
    let now = 10_000;
    const limit = new RateLimit({ lines: 5, bytes: 100 }, () => now);
    expect([limit.take(3, 30), limit.take(3, 30), limit.take(1, 10)]).toEqual([3, 2, 0]);
    expect(limit.drainRefused()).toBe(2);
    now += 1_000;
    expect([limit.take(1, 150), limit.take(1, 1)]).toEqual([1, 0]);
  });
});

describe("log frames", () => {
  test("are read as the schema reads them", () => {
    const text = fc.string({ maxLength: 5 });
    const any = fc.oneof(text, fc.constant(null), fc.integer(), fc.constant([]));
    const frame = fc.record(
      {
        type: fc.constantFrom("log", "warning"),
        ts: fc.oneof({ weight: 9, arbitrary: text }, any),
        level: fc.oneof({ weight: 9, arbitrary: text }, any),
        logger: fc.oneof({ weight: 9, arbitrary: text }, any),
        message: fc.oneof({ weight: 9, arbitrary: text }, any),
        exc: any,
        job_id: any,
        other: any,
      },
      { requiredKeys: ["type", "message"] },
    );
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 4 }), (frames) => {
        const lines = frames.map((each) => JSON.stringify(each));
        const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""));
        const expected = frames.map((each, index) => {
          const parsed = workerFrameSchema.safeParse(each).data;
          if (parsed?.type !== "log") return lines[index];
          const { ts, level, logger, message, exc, job_id: jobId } = parsed;
          return { ts, level, logger, message, exc: exc ?? null, jobId: jobId ?? null };
        });
        expect(readLogFrames(bytes, frames.length)).toEqual(expected);
      }),
      { numRuns: 500, seed: SEED },
    );
  });

  test("on one line are no frame, nor is half of one", () => {
    const log = JSON.stringify({ type: "log", ts: "t", level: "info", message: "m" });
    const found = readLogFrames(Buffer.from(`${log},${log}\n${log.slice(0, 20)}\n${log}\n`), 3);
    expect(found.map((frame) => typeof frame)).toEqual(["string", "string", "object"]);
  });

  test("go on unparsed and in their order, whichever way they are written", () => {
    const socket = new PassThrough();
    const frames: string[] = [];
    const logs: string[] = [];
    const control = new ControlStream(socket, "t".repeat(32), {
      frame: ({ type }) => frames.push(type),
      logs: ({ bytes, count }) => {
        for (const frame of readLogFrames(bytes, count)) {
          logs.push(typeof frame === "string" ? "?" : frame.message);
        }
      },
      note: () => undefined,
      ended: () => undefined,
    });
    const log = (message: string): string =>
      JSON.stringify({ type: "log", ts: "t", level: "info", message });
    const other = '{"level":"info", "ts":"t","message":"two","type":"log"}';
    const lines = [log("one"), '{"type":"warning","message":"w"}', other, "rubbish", log("three")];
    socket.emit("data", Buffer.from(lines.map((line) => `${line}\n`).join("")));
    expect(logs).toEqual(["one", "two", "three"]);
    expect(frames).toEqual(["warning"]);
    control.close();
  });
});
