import { Duplex, PassThrough } from "node:stream";
import { setImmediate as turnOver } from "node:timers/promises";
import { expect, test } from "vitest";
import { ControlStream } from "../../../src/process/control-stream.ts";
import { LoopTurn } from "../../../src/process/loop-turn.ts";
import { StreamReader } from "../../../src/process/stream-reader.ts";

const CHUNKS = 20;

/** A reader of a stream with many chunks; each costs two of the milliseconds of its turn. */
function flooded(): { readonly reader: StreamReader; readonly chunks: Buffer[] } {
  let now = 0;
  const chunks: Buffer[] = [];
  const stream = new PassThrough({ highWaterMark: 1 });
  const reader = new StreamReader(
    stream,
    {
      chunk: (bytes) => {
        now += 2;
        chunks.push(bytes);
      },
      ended: () => undefined,
    },
    new LoopTurn(() => now),
  );
  for (let n = 0; n < CHUNKS; n += 1) stream.write(Buffer.from([n]));
  stream.end();
  return { reader, chunks };
}

test("a flood is read in turns, in its order, and to its end", async () => {
  const { reader, chunks } = flooded();
  let turns = 0;
  while (chunks.length < CHUNKS) {
    const before = chunks.length;
    await turnOver();
    turns += 1;
    expect(chunks.length - before).toBeLessThanOrEqual(3);
  }
  expect(turns).toBeGreaterThanOrEqual(CHUNKS / 4);
  expect(Buffer.concat(chunks)).toEqual(Buffer.from(Array.from({ length: CHUNKS }, (_, n) => n)));
  await reader.drain();
});

test("what is left of a process that ended does not wait for its turn", async () => {
  const { reader, chunks } = flooded();
  await reader.drain();
  expect(chunks).toHaveLength(CHUNKS);
});

test("of one chunk of rubbish only as much is looked into as the loop has time for", async () => {
  const socket = new Duplex({
    read: () => undefined,
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  const notes: string[] = [];
  const control = new ControlStream(socket, "t".repeat(32), {
    frame: () => undefined,
    logs: () => undefined,
    note: (note) => notes.push(note),
    ended: () => undefined,
  });
  const lines = 32 * 1024;
  socket.emit("data", Buffer.from("y\n".repeat(lines)));
  expect(notes).toHaveLength(2_000);
  control.close();
  await control.drain();
  expect(notes.at(-1)).toBe(`${lines - 2_000} control frames dropped: over the rate limit`);
});
