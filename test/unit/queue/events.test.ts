import { describe, expect, test } from "vitest";
import { composition, ref } from "../../../src/composition/index.ts";
import type { QueueEvent } from "../../../src/queue/index.ts";
import { openQueue, readUntil, settled, told } from "../../support/queue-host.ts";
import { untilCancelled } from "../../support/fake-executor.ts";

const seqs = (events: readonly QueueEvent[]): number[] =>
  events.flatMap(({ seq }) => (seq === null ? [] : [seq]));
const isOver = ({ payload }: QueueEvent): boolean => payload["to"] === "completed";

describe("events", () => {
  test("a late reader catches up, then follows live, with no gap and no duplicate", async () => {
    await using host = await openQueue();
    const finish = Promise.withResolvers<void>();
    host.executor.add("tool", async ({ events }) => {
      await finish.promise;
      for (let n = 0; n < 50; n += 1) events.account("mark", { n });
    });
    const job = await host.queue.submit("tool");
    await host.executor.sent(1);
    const early = readUntil(job.events(), isOver);
    await settled();
    const late = readUntil(job.events(), isOver);
    finish.resolve();
    const rows = (await Promise.all([early, late])).map(seqs);
    const journal = (await host.journal({ jobId: job.id })).map(({ seq }) => seq);
    await job.ended();
    expect(rows[0]).toEqual(rows[1]);
    expect(journal.slice(0, rows[0]?.length)).toEqual(rows[0]);
    const after = await readUntil(job.events(rows[0]?.[2]), isOver);
    expect(seqs(after)).toEqual(rows[0]?.slice(3));
  });

  test("end with the job, and with the composition", async () => {
    await using host = await openQueue();
    host.executor.add("tool", () => 1);
    const run = await host.queue.submitComposition(
      composition({
        a: { capability: "tool" },
        b: { capability: "tool", kwargs: { x: ref("a") } },
      }),
    );
    const events: QueueEvent[] = [];
    for await (const event of run.events()) events.push(event);
    expect(events.at(-1)).toMatchObject({ jobId: null, payload: { to: "completed" } });
    expect(seqs(events)).toEqual(
      (await host.journal({ compositionId: run.id })).map((row) => row.seq),
    );
  });

  test("follow the commit: what is announced can be read already", async () => {
    await using host = await openQueue();
    host.executor.add("tool", () => "value");
    const job = await host.queue.submit("tool");
    for await (const { type, payload } of job.events()) {
      if (type !== "state_transition" || payload["to"] !== "completed") continue;
      expect(await host.store.getJob(job.id)).toMatchObject({ status: "completed" });
      expect(host.queue.peek(job.id)).toMatchObject({ status: "completed", result: "value" });
    }
  });

  test("a reader that lags behind its bound loses no row, and slows nobody", async () => {
    await using host = await openQueue();
    host.executor.add("tool", ({ events }) => {
      for (let n = 0; n < 1_500; n += 1) events.account("mark", { n });
    });
    const first = await host.queue.submit("tool");
    const slow = host.queue.events(first.id);
    const begun = await slow.next();
    await first.ended();
    await settled();
    const rest = await readUntil(slow, isOver);
    const seen = [begun.value as QueueEvent, ...rest].filter(({ type }) => type === "mark");
    const rows = (await host.journal({ jobId: first.id })).filter(
      (row) => row.eventType === "mark",
    );
    expect(seen.length).toBeGreaterThan(0);
    expect(seqs(seen)).toEqual(rows.slice(0, seen.length).map(({ seq }) => seq));
  });

  test("all events begin when they are asked for, not when they are first read", async () => {
    await using host = await openQueue();
    host.executor.add("tool", () => 1);
    await (await host.queue.submit("tool")).ended();
    const events = host.queue.allEvents();
    const job = await host.queue.submit("tool");
    await job.ended();
    const seen = await readUntil(events, isOver);
    expect(new Set(seen.map(({ jobId }) => jobId))).toEqual(new Set([job.id]));
    expect(seen[0]?.type).toBe("job_submitted");
  });

  test("of others than the queue are told too", async () => {
    await using host = await openQueue();
    const events = host.queue.allEvents();
    const row = { eventType: "worker_spawned", payload: { pid: 1 } };
    const { events: rows } = await host.store.stage([{ op: "journal.append", event: row }]);
    host.queue.announce(rows);
    expect((await events.next()).value).toMatchObject({ type: "worker_spawned" });
  });

  test("readers end when the host stops", async () => {
    await using host = await openQueue();
    host.executor.add("tool", untilCancelled);
    const job = await host.queue.submit("tool");
    const seen = (async () => {
      const events: string[] = [];
      for await (const { type } of job.events()) events.push(type);
      return events;
    })();
    await host.executor.sent(1);
    await settled();
    await host.queue.stop(0);
    expect((await seen)[0]).toBe("job_submitted");
  });
});

describe("why a job waits", () => {
  test("is journaled for the head of a class when it changes, not for those behind it", async () => {
    await using host = await openQueue({ scheduler: { maxLanes: 1 } });
    host.executor.add("tool", untilCancelled);
    const running = await host.queue.submit("tool");
    await host.executor.sent(1);
    const head = await host.queue.submit("tool");
    const behind = await host.queue.submit("tool");
    expect(host.queue.peek(head.id)?.blockReason).toBe("all 1 lanes are in use");
    expect(told(await host.journal({ jobId: behind.id }))).toEqual(["job_submitted"]);
    await head.cancel();
    await settled();
    expect(told(await host.journal({ jobId: behind.id }))[1]).toMatch(
      /^block_reason_changed null→all 1/u,
    );
    await running.cancel();
    await host.executor.sent(2);
    expect(host.queue.peek(behind.id)?.blockReason).toBeNull();
  });
});
