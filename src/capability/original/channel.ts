import { z } from "zod";
import type { WorkerConnection } from "../../process/index.ts";
import {
  dirRefSchema,
  fileRefSchema,
  statsSchema,
  statusReplySchema,
} from "../../protocol/index.ts";
import { isRecord } from "../../util/record.ts";
import { type ActiveCall, addUsage } from "../active-calls.ts";
import { type CallChannel, requestOf, type WorkerCall } from "../channel.ts";

const PROGRESS_EVERY_MS = 500;
const ACCOUNTS_HEADER = "x-cjm-accounts";

const progressSchema = z.object({ progress: z.number(), message: z.string().default("") });
const statsReplySchema = statsSchema
  .omit({ usage: true })
  .extend({ usage: z.record(z.string(), z.unknown()).nullish() });
const accountsSchema = z.array(z.looseObject({ event_type: z.string().default("worker_account") }));

/**
 * A worker of the published Python package: progress is polled, one cancel flag serves the whole
 * worker, usage and memory are read after each call, accounts ride a response header, and a file
 * goes as its path.
 */
export class OriginalChannel implements CallChannel {
  readonly #connection: WorkerConnection;

  constructor(connection: WorkerConnection) {
    this.#connection = connection;
  }

  async send(call: WorkerCall, active: ActiveCall): Promise<unknown> {
    const { path, body } = requestOf(withPaths(call));
    using _poll = this.#pollProgress(active);
    const { value, headers } = await this.#connection.post(path, body, z.unknown());
    reportAccounts(active, headers[ACCOUNTS_HEADER]);
    await this.#readStats(active);
    return value;
  }

  async *stream(call: WorkerCall, active: ActiveCall): AsyncIterable<unknown> {
    using _poll = this.#pollProgress(active);
    yield* this.#connection.stream("/execute_stream", requestOf(withPaths(call)).body);
    await this.#readStats(active);
  }

  async cancel(): Promise<void> {
    await this.#connection.post("/cancel", {}, statusReplySchema);
  }

  #pollProgress({ events }: ActiveCall): Disposable {
    let last = "";
    const look = async (): Promise<void> => {
      const { value } = await this.#connection.get("/progress", progressSchema);
      const seen = JSON.stringify(value);
      if (seen !== last && !isOver) events.progress(value.progress, value.message);
      last = seen;
    };
    let isOver = false;
    const timer = setInterval(() => void look().catch(() => undefined), PROGRESS_EVERY_MS);
    return {
      [Symbol.dispose]: () => {
        isOver = true;
        clearInterval(timer);
      },
    };
  }

  /** Best effort: a call that succeeded does not fail because its worker cannot be measured. */
  async #readStats(active: ActiveCall): Promise<void> {
    try {
      const { value } = await this.#connection.get("/stats", statsReplySchema);
      active.hostPeakMb = Math.max(active.hostPeakMb ?? 0, value.memory_rss_mb ?? 0);
      const units = Object.entries(value.usage ?? {}).flatMap(([unit, amount]) =>
        typeof amount === "number" ? [[unit, amount] as const] : [],
      );
      addUsage(active, Object.fromEntries(units));
    } catch {
      return;
    }
  }
}

/** The original knows no references: a file or folder goes as the path it has on this machine. */
function withPaths(call: WorkerCall): WorkerCall {
  const kwargs = Object.fromEntries(
    Object.entries(call.kwargs).map(([name, value]) => [name, pathsOf(value)]),
  );
  return { ...call, kwargs };
}

function pathsOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(pathsOf);
  if (!isRecord(value)) return value;
  const ref = fileRefSchema.safeParse(value).data ?? dirRefSchema.safeParse(value).data;
  if (ref !== undefined) return ref.data.path;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, pathsOf(member)]));
}

function reportAccounts({ events }: ActiveCall, header: string | string[] | undefined): void {
  if (typeof header !== "string") return;
  for (const { event_type, payload, ...rest } of parseAccounts(header)) {
    events.account(event_type, isRecord(payload) ? payload : rest);
  }
}

function parseAccounts(header: string): z.output<typeof accountsSchema> {
  try {
    return accountsSchema.safeParse(JSON.parse(header)).data ?? [];
  } catch {
    return [];
  }
}
