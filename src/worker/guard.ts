import { createHash, timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import type { WorkerBindings } from "./body.ts";
import type { FrameSink } from "./control-stream.ts";

export interface GuardOptions {
  readonly token: string;
  readonly sink: FrameSink;
  /** On TCP any local program and any web page can connect: names the only hosts it answers to. */
  readonly hosts?: () => readonly string[];
}

const WARNING_INTERVAL_MS = 1000;

/** Lets only the host in: its token, and on TCP its `Host` and no `Origin`. */
export function guard({ token, sink, hosts }: GuardOptions): MiddlewareHandler<WorkerBindings> {
  const expected = digest(`Bearer ${token}`);
  let refused = 0;
  let warnedAt = -Infinity;

  const warn = (why: string): void => {
    refused += 1;
    const now = performance.now();
    if (now - warnedAt < WARNING_INTERVAL_MS) return;
    warnedAt = now;
    sink.send({ type: "warning", message: `refused ${refused} request(s), the last for ${why}` });
    refused = 0;
  };

  return async function hostOnly(c, next) {
    if (!timingSafeEqual(digest(c.req.header("authorization") ?? ""), expected)) {
      warn("a missing or wrong token");
      return c.json({ detail: "Unauthorized" }, 401);
    }
    const isForeign =
      hosts !== undefined &&
      (c.req.header("origin") !== undefined || !hosts().includes(c.req.header("host") ?? ""));
    if (isForeign) {
      warn("a foreign Host or Origin");
      return c.json({ detail: "Forbidden" }, 403);
    }
    return next();
  };
}

/** Equal lengths, so that the comparison takes the same time whatever was sent. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
