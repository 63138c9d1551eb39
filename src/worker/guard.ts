import { timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import type { WorkerBindings } from "./body.ts";
import type { FrameSink } from "./control-stream.ts";

export interface GuardOptions {
  readonly token: string;
  readonly sink: FrameSink;
  /** On TCP any local program and any web page can connect: names the only hosts it answers to. */
  readonly hosts?: () => readonly string[];
}

/** Why a request is not let in. */
export interface Refusal {
  readonly status: 401 | 403;
  readonly detail: string;
}

type HeaderName = "authorization" | "origin" | "host";

const WARNING_INTERVAL_MS = 1000;

/** Lets only the host in: its token, and on TCP its `Host` and no `Origin`. */
export class Guard {
  readonly #options: GuardOptions;
  readonly #expected: Buffer;
  #refused = 0;
  #warnedAt = -Infinity;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#expected = Buffer.from(`Bearer ${options.token}`);
  }

  /** Undefined for a request that may come in; any other is told to the host. */
  refusal(header: (name: HeaderName) => string | undefined): Refusal | undefined {
    if (!this.#isToken(header("authorization") ?? "")) {
      return this.#refuse("a missing or wrong token", { status: 401, detail: "Unauthorized" });
    }
    const { hosts } = this.#options;
    const isForeign =
      hosts !== undefined &&
      (header("origin") !== undefined || !hosts().includes(header("host") ?? ""));
    if (!isForeign) return undefined;
    return this.#refuse("a foreign Host or Origin", { status: 403, detail: "Forbidden" });
  }

  /** Compares in the same time whatever was sent; a length tells nothing, as all tokens have one. */
  #isToken(authorization: string): boolean {
    const given = Buffer.from(authorization);
    return given.length === this.#expected.length && timingSafeEqual(given, this.#expected);
  }

  #refuse(why: string, refusal: Refusal): Refusal {
    this.#refused += 1;
    const now = performance.now();
    if (now - this.#warnedAt >= WARNING_INTERVAL_MS) {
      this.#warnedAt = now;
      const message = `refused ${this.#refused} request(s), the last for ${why}`;
      this.#options.sink.send({ type: "warning", message });
      this.#refused = 0;
    }
    return refusal;
  }
}

/** The guard in front of the routes of an app. */
export function guarded(guard: Guard): MiddlewareHandler<WorkerBindings> {
  return async function hostOnly(c, next) {
    const refusal = guard.refusal((name) => c.req.header(name));
    if (refusal !== undefined) return c.json({ detail: refusal.detail }, refusal.status);
    return next();
  };
}
