import { rm } from "node:fs/promises";
import { once } from "node:events";
import { createAdaptorServer } from "@hono/node-server";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { stream } from "hono/streaming";
import type { z } from "zod";
import type { CapabilityManager } from "../capability/index.ts";
import { parseCompositionFile } from "../composition/index.ts";
import { CjmError, toJobError } from "../errors/index.ts";
import type { JobQueue, QueueEvent, ResourceProbe } from "../queue/index.ts";
import type { RemovedBodies, Retention, RetentionResult, StorePort } from "../store/index.ts";
import { compact } from "../util/compact.ts";
import { hostStatus } from "./status.ts";
import {
  clearProfilesSchema,
  type Measurements,
  retainRequestSchema,
  secretChangedSchema,
  submitRequestSchema,
  targetRequestSchema,
} from "./wire.ts";

export interface DoorParts {
  readonly queue: JobQueue;
  readonly manager: CapabilityManager;
  readonly store: StorePort;
  readonly resources: ResourceProbe;
  readonly dataDir: string;
  readonly version: string;
  /** What the telemetry measures now. */
  measurements(): Measurements;
  /** Deletes old diagnostics. */
  retain(keep: Retention): Promise<RetentionResult>;
  /** Removes large results and adopted files of work that is over. */
  removeBodies(keep: Retention): Promise<RemovedBodies>;
}

/** A live host's control socket. Disposing it closes every connection. */
export interface Door extends AsyncDisposable {
  readonly path: string;
}

const BODY_MAX_BYTES = 4 * 1024 * 1024;

/**
 * Opens the control socket of this host. It answers whoever can open it: the file is 0600 in a
 * folder that is 0700, so that is this user alone.
 */
export async function openDoor(path: string, parts: DoorParts): Promise<Door> {
  const server = createAdaptorServer({ fetch: createDoorApp(parts).fetch });
  const umask = process.umask(0o177);
  try {
    server.listen(path);
  } finally {
    process.umask(umask);
  }
  await once(server, "listening");
  return {
    path,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      if ("closeAllConnections" in server) server.closeAllConnections();
      await closed;
      await rm(path, { force: true });
    },
  };
}

/** The door's whole HTTP surface. */
// oxlint-disable-next-line typescript/explicit-module-boundary-types -- the inferred type is the API
export function createDoorApp(parts: DoorParts) {
  const { queue } = parts;
  return new Hono()
    .use(bodyLimit({ maxSize: BODY_MAX_BYTES }))
    .onError((error, c) => {
      const failure = toJobError(error, { tracebackPolicy: "none" });
      return c.json({ _job_error: failure }, failure.category === "user_input" ? 400 : 500);
    })
    .get("/status", (c) => c.json(hostStatus(parts)))
    .get("/measurements", (c) => c.json(parts.measurements()))
    .post("/retention", async (c) => {
      const keep = parse(retainRequestSchema, await c.req.json());
      const deleted = await parts.retain(boundsOf(keep));
      const removed = await parts.removeBodies(boundsOf(keep.results ?? {}));
      return c.json({
        records_deleted: deleted.recordsDeleted,
        chunks_deleted: deleted.chunksDeleted,
        results_deleted: removed.bodies,
        result_bytes_deleted: removed.bytes,
      });
    })
    .post("/submit", async (c) => {
      const { composition, inputs } = parse(submitRequestSchema, await c.req.json());
      const handle = await queue.submitComposition(parseCompositionFile(composition), inputs);
      return c.json({ id: handle.id });
    })
    .get("/composition/:id", async (c) => {
      const view = await queue.getComposition(c.req.param("id"));
      return view === undefined
        ? c.json({ _job_error: unknownId(c.req.param("id")) }, 404)
        : c.json(view);
    })
    .get("/events", (c) => {
      const after = Number(c.req.query("after_seq") ?? 0);
      const events = eventsFor(queue, c.req.query("id"), after);
      return stream(c, async (out) => {
        out.onAbort(() => {
          void events.return(undefined);
        });
        for await (const event of events) await out.write(`${JSON.stringify(event)}\n`);
      });
    })
    .post("/cancel", async (c) => {
      const { id } = parse(targetRequestSchema, await c.req.json());
      return c.json({ cancelled: (await queue.cancelComposition(id)) || (await queue.cancel(id)) });
    })
    .post("/resume", async (c) => {
      const { id } = parse(targetRequestSchema, await c.req.json());
      return c.json({ resumed: await queue.resume(id) });
    })
    .route("/", changes(parts));
}

/** What alters more than one job. */
function changes({ queue, manager }: Pick<DoorParts, "queue" | "manager">) {
  return new Hono()
    .post("/profiles/clear", async (c) => {
      const { capability } = parse(clearProfilesSchema, await c.req.json());
      return c.json({ cleared: await queue.clearProfiles(capability) });
    })
    .post("/secret-changed", async (c) => {
      const change = parse(secretChangedSchema, await c.req.json());
      return c.json(await manager.secretChanged(change));
    })
    .post("/reload", async (c) => {
      const { id } = parse(targetRequestSchema, await c.req.json());
      await manager.reload(id);
      return c.json({ reloaded: id });
    });
}

function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  throw new CjmError("CAPABILITY_INPUT", `The request is wrong: ${fields.join("; ")}`);
}

function eventsFor(
  queue: JobQueue,
  id: string | undefined,
  afterSeq: number,
): AsyncGenerator<QueueEvent> {
  if (id === undefined) return queue.allEvents();
  return queue.hasComposition(id)
    ? queue.eventsForComposition(id, afterSeq)
    : queue.events(id, afterSeq);
}

function unknownId(id: string): ReturnType<typeof toJobError> {
  return toJobError(new CjmError("JOB_UNKNOWN", `This host knows no composition ${id}`), {
    tracebackPolicy: "none",
  });
}

function boundsOf(keep: {
  readonly max_age_days?: number | undefined;
  readonly max_total_mb?: number | undefined;
}): Retention {
  return compact({ maxAgeDays: keep.max_age_days, maxTotalMb: keep.max_total_mb });
}
