import { Pool } from "undici";
import { z } from "zod";
import type { SecretChange, SecretEffect } from "../capability/index.ts";
import { CjmError, fromJobError } from "../errors/index.ts";
import { jobErrorBodySchema } from "../protocol/index.ts";
import type { QueueEvent } from "../queue/index.ts";
import type { RemovedBodies, Retention, RetentionResult } from "../store/index.ts";
import {
  compositionReplySchema,
  hostStatusSchema,
  type HostStatus,
  type Measurements,
  measurementsSchema,
  retainReplySchema,
  queueEventSchema,
  secretEffectSchema,
} from "./wire.ts";

export type CompositionReply = z.output<typeof compositionReplySchema>;

/** Speaks to a live host. Own it with `await using`. */
export class DoorClient implements AsyncDisposable {
  readonly #pool: Pool;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
    this.#pool = new Pool("http://host", {
      socketPath: path,
      connections: 4,
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  async status(): Promise<HostStatus> {
    return await this.#call("GET", "/status", hostStatusSchema);
  }

  /** What the host's telemetry measures now. */
  async measurements(): Promise<Measurements> {
    return await this.#call("GET", "/measurements", measurementsSchema);
  }

  /** Has the host delete what its diagnostics, and its results, need not keep. */
  async retain(
    diagnostics: Retention,
    results: Retention,
  ): Promise<RetentionResult & { readonly removed: RemovedBodies }> {
    const request = { ...boundsOf(diagnostics), results: boundsOf(results) };
    const reply = await this.#call("POST", "/retention", retainReplySchema, request);
    return {
      recordsDeleted: reply.records_deleted,
      chunksDeleted: reply.chunks_deleted,
      removed: { bodies: reply.results_deleted, bytes: reply.result_bytes_deleted },
    };
  }

  /** @returns the composition's id. */
  async submit(
    composition: Readonly<Record<string, unknown>>,
    inputs: Readonly<Record<string, unknown>>,
  ): Promise<string> {
    const reply = z.object({ id: z.string() });
    return (await this.#call("POST", "/submit", reply, { composition, inputs })).id;
  }

  async composition(id: string): Promise<CompositionReply> {
    return await this.#call(
      "GET",
      `/composition/${encodeURIComponent(id)}`,
      compositionReplySchema,
    );
  }

  async cancel(id: string): Promise<boolean> {
    const reply = z.object({ cancelled: z.boolean() });
    return (await this.#call("POST", "/cancel", reply, { id })).cancelled;
  }

  /** @returns how many profiles were forgotten. */
  async clearProfiles(capability: string | undefined): Promise<number> {
    const reply = z.object({ cleared: z.int() });
    return (await this.#call("POST", "/profiles/clear", reply, { capability })).cleared;
  }

  async resume(id: string): Promise<boolean> {
    const reply = z.object({ resumed: z.boolean() });
    return (await this.#call("POST", "/resume", reply, { id })).resumed;
  }

  /** A secret in the store was set or deleted: journaled, and its workers are replaced. */
  async secretChanged(change: SecretChange): Promise<SecretEffect> {
    return await this.#call("POST", "/secret-changed", secretEffectSchema, change);
  }

  async reload(instanceId: string): Promise<void> {
    await this.#call("POST", "/reload", z.object({ reloaded: z.string() }), { id: instanceId });
  }

  /** Events of a job or composition, or of everything; ends when the host ends it. */
  async *events(id?: string, afterSeq = 0): AsyncGenerator<QueueEvent> {
    const query = id === undefined ? "" : `?id=${encodeURIComponent(id)}&after_seq=${afterSeq}`;
    const { body } = await this.#send("GET", `/events${query}`);
    let rest = "";
    for await (const part of body.setEncoding("utf8")) {
      const lines = (rest + String(part)).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield queueEventSchema.parse(JSON.parse(line));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.destroy();
  }

  async #call<T>(
    method: "GET" | "POST",
    path: string,
    schema: z.ZodType<T>,
    request?: unknown,
  ): Promise<T> {
    const { statusCode, body } = await this.#send(method, path, request);
    const answer: unknown = await body.json();
    if (statusCode === 200) return schema.parse(answer);
    const failure = jobErrorBodySchema.safeParse(answer);
    if (failure.success) throw fromJobError(failure.data._job_error);
    throw new CjmError("DOOR_UNAVAILABLE", `The host answered ${path} with ${statusCode}`);
  }

  async #send(
    method: "GET" | "POST",
    path: string,
    request?: unknown,
  ): Promise<Awaited<ReturnType<Pool["request"]>>> {
    try {
      return await this.#pool.request({
        method,
        path,
        ...(request !== undefined && {
          body: JSON.stringify(request),
          headers: { "content-type": "application/json" },
        }),
      });
    } catch (error) {
      throw new CjmError("DOOR_UNAVAILABLE", `No host answers at ${this.#path}`, { cause: error });
    }
  }
}

function boundsOf({ maxAgeDays, maxTotalMb }: Retention): {
  readonly max_age_days: number | undefined;
  readonly max_total_mb: number | undefined;
} {
  return { max_age_days: maxAgeDays, max_total_mb: maxTotalMb };
}
