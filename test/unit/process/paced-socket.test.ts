import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LoopTurn, nextTurn } from "../../../src/process/loop-turn.ts";
import { PacedSocket } from "../../../src/process/paced-socket.ts";

/** A clock that goes on by one millisecond each time somebody looks. */
function tickingClock(): () => number {
  let now = 0;
  return () => (now += 1);
}

async function afterTurn(): Promise<void> {
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
}

describe("the part of a turn that is spent on workers", () => {
  test("is used up, and there is a new one in the next turn", async () => {
    const turn = new LoopTurn(tickingClock());
    let steps = 0;
    while (turn.hasTime) steps += 1;
    expect(steps).toBeLessThanOrEqual(5);
    expect(turn.hasTime).toBe(false);
    await afterTurn();
    expect(turn.hasTime).toBe(true);
  });

  test("goes to who has waited longest, and to no more than it has time for", async () => {
    const turn = new LoopTurn(tickingClock());
    while (turn.hasTime);
    const resumed: number[] = [];
    for (let one = 0; one < 12; one += 1) turn.wait(() => resumed.push(one));
    await afterTurn();
    const inOneTurn = resumed.length;
    expect(inOneTurn).toBeGreaterThan(0);
    expect(inOneTurn).toBeLessThanOrEqual(5);
    while (resumed.length < 12) await afterTurn();
    expect(resumed).toEqual(Array.from({ length: 12 }, (_, one) => one));
  });

  test("comes to who waits for it though nobody has read in this turn", async () => {
    await nextTurn(new LoopTurn(tickingClock()));
  });
});

const SENT = 200_000;

describe("a connection that is paced", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "cjm-paced-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  /** Connects to a server that sends `SENT` bytes and ends. */
  async function connected(name: string, turn: LoopTurn): Promise<PacedSocket> {
    const path = join(folder, name);
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.end(Buffer.alloc(SENT, "x"));
      server.close();
    });
    server.listen(path);
    await once(server, "listening");
    const socket = new PacedSocket(turn);
    socket.connect(path);
    return socket;
  }

  test("gives everything, in pieces, only so many a turn, and then its end", async () => {
    const socket = await connected("all", new LoopTurn(tickingClock()));
    let [bytes, largest, most, sinceTurn] = [0, 0, 0, 0];
    const turns = setInterval(() => undefined, 1);
    const reset = (): void => {
      sinceTurn = 0;
      if (!socket.destroyed) setImmediate(reset);
    };
    setImmediate(reset);
    // As undici's parser does: on and on, until there is nothing.
    socket.on("readable", () => {
      for (let piece = socket.read(); piece !== null; piece = socket.read()) {
        bytes += piece.length;
        largest = Math.max(largest, piece.length);
        sinceTurn += 1;
        most = Math.max(most, sinceTurn);
      }
    });
    await once(socket, "end");
    clearInterval(turns);
    socket.destroy();
    expect(bytes).toBe(SENT);
    expect(largest).toBe(4_096);
    // What a turn has is counted from immediate to immediate; this test's own lies between.
    expect(most).toBeLessThanOrEqual(10);
  });

  test("gives nothing once it is given up, though much has come", async () => {
    const socket = await connected("destroyed", new LoopTurn(tickingClock()));
    await once(socket, "readable");
    expect(socket.read()?.length).toBe(4_096);
    expect(socket.readableLength).toBeGreaterThan(0);
    socket.destroy();
    expect(socket.read()).toBe(null);
  });
});
