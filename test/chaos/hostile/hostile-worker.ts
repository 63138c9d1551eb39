/**
 * A worker that comes up as it should and then answers every call with the bytes of a named case,
 * or with mutated ones of a seed. It writes its answers itself: no server would send them.
 *
 *     POST /execute {"kwargs": {"case": "gzip-bomb"}}
 */
import { writeSync } from "node:fs";
import { createServer, Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { randomFrom } from "../support/random.ts";
import { mutate } from "./mutate.ts";

type Answer = (socket: Socket, seed: number) => void;

const HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
const MB = 1024 * 1024;
const BOMB = gzipSync(Buffer.alloc(64 * MB));
const VALID = `${HEAD}content-length: 15\r\n\r\n{"status":"ok"}`;

const whole =
  (text: string): Answer =>
  (socket) => {
    socket.write(text, "latin1");
  };
const closed =
  (text: string): Answer =>
  (socket) => {
    socket.end(text, "latin1");
  };

/** Writes until the reader is gone, as fast as it reads, at most `bytes`. */
const flood =
  (head: string, part: string, bytes = Number.POSITIVE_INFINITY): Answer =>
  (socket) => {
    const chunk = Buffer.from(part.repeat(Math.ceil(16_384 / part.length)));
    let left = bytes;
    const more = (): void => {
      while (!socket.destroyed && left > 0) {
        left -= chunk.length;
        if (!socket.write(chunk)) {
          socket.once("drain", more);
          return;
        }
      }
    };
    socket.write(head);
    more();
  };

/** A few bytes now and then, for ever. */
const trickle =
  (head: string, part: string): Answer =>
  (socket) => {
    socket.write(head);
    const timer = setInterval(() => socket.write(part), 5);
    socket.once("close", () => {
      clearInterval(timer);
    });
  };

const body = (content: string | Buffer, headers = ""): string => {
  const bytes = Buffer.from(content);
  return `${HEAD}${headers}content-length: ${bytes.length}\r\n\r\n${bytes.toString("latin1")}`;
};

/** Each ends by itself; what ends it is in the name. */
const ENDING: Readonly<Record<string, Answer>> = {
  "endless headers": flood("HTTP/1.1 200 OK\r\n", "x-a: bbbbbbbb\r\n"),
  "one endless header": flood("HTTP/1.1 200 OK\r\nx-a: ", "b"),
  "gzip bomb": whole(body(BOMB, "content-encoding: gzip\r\n")),
  "1 GB body": flood(`${HEAD}content-length: 1073741824\r\n\r\n`, "0", 1_024 * MB),
  "endless chunks": flood(`${HEAD}transfer-encoding: chunked\r\n\r\n`, "1\r\n0\r\n"),
  "a flood of tiny lines": flood(`${HEAD}content-length: 131072\r\n\r\n`, "0\n", 131_072),
  "chunk that is no number": whole(
    `${HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`,
  ),
  "negative content length": whole(`${HEAD}content-length: -1\r\n\r\n{}`),
  "two content lengths": whole(`${HEAD}content-length: 2\r\ncontent-length: 3\r\n\r\n{}`),
  "length and chunks": whole(
    `${HEAD}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`,
  ),
  "body shorter than said": closed(`${HEAD}content-length: 100\r\n\r\n{"a":`),
  "body longer than said": closed(`${HEAD}content-length: 2\r\n\r\n{}{}{}{}`),
  "no body at all": closed(`${HEAD}\r\n`),
  "closed at once": closed(""),
  "closed in the headers": closed("HTTP/1.1 200 OK\r\nx-a"),
  "cut off in the body": (socket) => {
    socket.write(`${HEAD}content-length: 100\r\n\r\n{"a":`, () => socket.destroy());
  },
  "deep JSON": whole(body(`${"[".repeat(50_000)}${"]".repeat(50_000)}`)),
  "deep JSON, one piece": whole(body('{"a":'.repeat(100_000))),
  "a member named __proto__": whole(body('{"__proto__":{"polluted":1},"status":"ok"}')),
  "invalid UTF-8": whole(body(Buffer.from([0x22, 0xff, 0xc0, 0x22]))),
  "not HTTP": closed("SSH-2.0-OpenSSH_9.6\r\n"),
  "HTTP/0.9": closed("{}"),
  "status 99999": closed("HTTP/1.1 99999 ?\r\n\r\n"),
  "status 101": whole("HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
  "status 204 with a body": closed("HTTP/1.1 204 No Content\r\n\r\n{}"),
  "a zero byte in a header": whole("HTTP/1.1 200 OK\r\nx-\u0000: a\r\n\r\n"),
  "two answers to one question": whole(`${VALID}${VALID}`),
  "an error without a reason": closed("HTTP/1.1 500 no\r\ncontent-length: 2\r\n\r\n{}"),
  "zero bytes": closed("\u0000".repeat(5_000)),
};

/** These never end: the caller's deadline does. */
const ENDLESS: Readonly<Record<string, Answer>> = {
  silence: () => undefined,
  "endless status line": flood("HTTP/1.1 200 ", "O"),
  "chunk of 2^63 bytes": whole(`${HEAD}transfer-encoding: chunked\r\n\r\n7fffffffffffffff\r\n`),
  "slow-loris headers": trickle("HTTP/1.1 200 OK\r\n", "x"),
  "slow-loris body": trickle(`${HEAD}transfer-encoding: chunked\r\n\r\n`, "1\r\n \r\n"),
  "half-closed": (socket) => {
    socket.write(`${HEAD}content-length: 9\r\n\r\n{`);
    socket.pause();
  },
  "endless 103": trickle("", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
};

const CASES: Readonly<Record<string, Answer>> = {
  ...ENDING,
  ...ENDLESS,
  mutated: (socket, seed) => {
    const random = randomFrom(seed);
    socket.end(mutate(random, mutate(random, Buffer.from(VALID))));
  },
};

function serve(name: string): void {
  const address = process.env["CJM_LISTEN"] ?? "";
  const { pid } = process;
  new Socket({ fd: 3, readable: true }).resume().once("close", () => process.exit());
  const server = createServer((socket) => {
    let asked = "";
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      asked += chunk.toString("latin1");
      if (!isWhole(asked)) return;
      const [path = ""] = /(?<=^[A-Z]+ )\S+/u.exec(asked) ?? [];
      const [, sent = ""] = asked.split("\r\n\r\n");
      asked = "";
      answer(socket, path, sent);
    });
  });
  server.listen(address.replace("unix:", ""), () => {
    const ready = { type: "ready", protocol: 1, address, pid, name, version: "1" };
    writeSync(3, `${JSON.stringify(ready)}\n`);
  });

  function answer(socket: Socket, path: string, sent: string): void {
    if (path === "/health") {
      whole(body(JSON.stringify({ status: "running", pid, name, version: "1" })))(socket, 0);
    } else if (path.startsWith("/execute")) {
      const { kwargs } = JSON.parse(sent) as { kwargs: { case: string; seed?: number } };
      CASES[kwargs.case]?.(socket, kwargs.seed ?? 0);
    } else {
      whole(VALID)(socket, 0);
    }
  }
}

/** True when the request's body is here. */
function isWhole(asked: string): boolean {
  const [head, sent] = asked.split("\r\n\r\n");
  if (sent === undefined) return false;
  const length = /content-length: (?<bytes>\d+)/iu.exec(head ?? "")?.groups?.["bytes"];
  return sent.length >= Number(length ?? 0);
}

if (process.env["CJM_CONTROL_FD"] !== undefined) serve("hostile");

export const ENDING_CASES = Object.keys(ENDING);
export const ENDLESS_CASES = Object.keys(ENDLESS);
