import { once } from "node:events";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { ControlStream } from "../../../src/process/control-stream.ts";
import { OutputPump } from "../../../src/process/output-pump.ts";
import { outputTexts } from "../../../src/util/lines.ts";

const COUNT = 60_000;
/** What was refused, of texts that tell of it. */
const dropped = (texts: readonly string[]): number =>
  texts.reduce(
    (sum, text) =>
      sum +
      Number(/(?<count>\d+) (?:lines|control frames) dropped/u.exec(text)?.groups?.["count"] ?? 0),
    0,
  );

test("lines that are dropped just before the stream ends are counted too", async () => {
  const stream = new PassThrough();
  const lines: string[] = [];
  const pump = new OutputPump(stream, ({ bytes }) => lines.push(...outputTexts(bytes)));
  stream.end("a line\n".repeat(COUNT));
  await pump.drain();
  expect(dropped(lines)).toBeGreaterThan(0);
  expect(lines.filter((line) => line === "a line").length + dropped(lines)).toBe(COUNT);
});

test("so are control frames", async () => {
  const stream = new PassThrough();
  const [kept, notes]: [unknown[], string[]] = [[], []];
  const control = new ControlStream(stream, "token", {
    frame: (frame) => kept.push(frame),
    logs: () => undefined,
    note: (note) => notes.push(note),
    ended: () => undefined,
  });
  stream.end(
    `${JSON.stringify({ type: "account", event_type: "e", payload: {} })}\n`.repeat(COUNT),
  );
  await once(stream, "close");
  control.close();
  expect(dropped(notes)).toBeGreaterThan(0);
  // The hello, which the pass-through gives back, is none.
  const other = notes.filter((note) => note.startsWith("not a control frame")).length;
  expect(kept.length + other + dropped(notes)).toBe(COUNT + 1);
});
