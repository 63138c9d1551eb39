import { describe, expect, test } from "vitest";
import { composition, ref } from "../../../src/composition/index.ts";
import { CjmError } from "../../../src/errors/index.ts";
import {
  type Explanation,
  explainComposition,
  explainJob,
  trace,
} from "../../../src/queue/index.ts";
import type { JournalEvent } from "../../../src/store/index.ts";
import { openQueue } from "../../support/queue-host.ts";

let seq = 0;
function row(ms: number, eventType: string, payload: object = {}, more: object = {}): JournalEvent {
  seq += 1;
  return {
    seq,
    eventId: String(seq),
    ts: new Date(ms).toISOString(),
    eventType,
    runId: null,
    jobId: "job",
    compositionId: null,
    nodeId: null,
    capabilityInstanceId: null,
    capabilityName: null,
    configHash: null,
    taskName: null,
    method: null,
    workerSessionId: null,
    actor: null,
    workerReported: false,
    payload: payload as JournalEvent["payload"],
    ...more,
  };
}
const story = (told: Explanation | null): string[] =>
  (told?.spans ?? []).map(({ kind, what, fromMs, toMs }) => `${toMs - fromMs} ${kind} ${what}`);

function expectWhole(told: Explanation | null): void {
  const sum = (told?.spans ?? []).reduce((all, { fromMs, toMs }) => all + toMs - fromMs, 0);
  expect(sum).toBe(told?.wholeMs);
}

describe("where a job's time went", () => {
  test("waiting, loading and running, attempt by attempt, sum to the whole", () => {
    const told = explainJob(
      [
        row(0, "job_submitted"),
        row(10, "block_reason_changed", {
          to: "job x runs alone on GPU g",
          reason: { kind: "alone", behindJobId: "x" },
        }),
        row(100, "state_transition", { to: "running" }),
        row(180, "retry_started", { load_ms: 30 }),
        row(180, "state_transition", { to: "pending" }),
        row(400, "state_transition", { to: "running" }),
        row(500, "state_transition", { to: "completed", job_snapshot: { load_ms: 0 } }),
      ],
      9_999,
    );
    expect(story(told)).toEqual([
      "10 waiting its turn among the jobs of its class",
      "90 waiting job x runs alone on GPU g",
      "30 loading attempt 1",
      "50 running attempt 1",
      "220 waiting the delay before attempt 2",
      "100 running attempt 2",
    ]);
    expect(told?.spans[1]?.behindJobId).toBe("x");
    expect(told).toMatchObject({ id: "job", status: "completed", wholeMs: 500 });
    expectWhole(told);
  });

  test("what a host that stopped took with it is lost, not running", () => {
    const told = explainJob(
      [
        row(0, "job_submitted"),
        row(5, "state_transition", { to: "running" }),
        row(1_000, "state_transition", { to: "pending", resumed: true }),
        row(1_010, "state_transition", { to: "running" }),
      ],
      1_050,
    );
    expect(story(told)).toEqual([
      "5 waiting its turn among the jobs of its class",
      "995 lost attempt 1",
      "10 waiting its turn among the jobs of its class",
      "40 running attempt 2",
    ]);
    expectWhole(told);
  });

  test("nothing is known of what is not in the journal", () => {
    expect(explainJob([], 0)).toBeNull();
    expect(explainComposition([], 0)).toBeNull();
  });

  test("a real composition's spans meet end to end, and name its nodes", async () => {
    await using host = await openQueue({ scheduler: { maxLanes: 1 } });
    host.executor.add("tool", ({ attempt, kwargs }) => {
      if (kwargs["flaky"] === true && attempt === 1)
        throw new CjmError("CAPABILITY_RESOURCE", "full");
      return "x";
    });
    const run = await host.queue.submitComposition(
      composition({
        a: { capability: "tool", kwargs: { flaky: true } },
        b: { capability: "tool" },
        c: { capability: "tool", kwargs: { in: ref("a") } },
      }),
    );
    await run.result();
    const told = explainComposition(await host.journal({ compositionId: run.id }), Date.now());
    expectWhole(told);
    expect(told?.status).toBe("completed");
    expect(told?.spans.every(({ what }) => what !== "")).toBe(true);
    for (const [index, span] of (told?.spans ?? []).entries()) {
      if (index > 0) expect(span.fromMs).toBe(told?.spans[index - 1]?.toMs);
    }
  });
});

describe("what came from what", () => {
  const file = (path: string, digit: string) => ({
    __wire__: "file.ref",
    data: { path, size: 1, sha256: `sha256:${digit.repeat(64)}` },
  });

  test("is walked both ways, from one composition to another by content", async () => {
    await using host = await openQueue();
    host.executor.add("make", () => file("/made", "a")).add("use", () => file("/used", "b"));
    const first = await host.queue.submitComposition(
      composition({
        seed: { capability: "use" },
        make: { capability: "make", kwargs: { in: ref("seed") } },
      }),
    );
    await first.result();
    const second = await host.queue.submitComposition(
      composition({ use: { capability: "use", kwargs: { model: file("/made", "a") } } }),
    );
    await second.result();
    const web = await trace({ hash: `sha256:${"a".repeat(64)}` }, host.store);
    expect(web.map(({ nodeId, distance }) => [nodeId, distance])).toEqual(
      expect.arrayContaining([
        ["make", 0],
        ["use", 0],
        ["seed", -1],
      ]),
    );
    const node = await trace({ compositionId: second.id, nodeId: "use" }, host.store);
    expect(node.find(({ nodeId }) => nodeId === "make")?.distance).toBe(-1);
    expect(await trace({ hash: `sha256:${"c".repeat(64)}` }, host.store)).toEqual([]);
  });
});

describe("what was measured", () => {
  test("is listed and forgotten, in the store and for the scheduler", async () => {
    await using host = await openQueue();
    host.executor.add("tool", () => 1).add("other", () => 2);
    await (await host.queue.submit("tool")).ended();
    await (await host.queue.submit("other")).ended();
    expect(host.queue.getProfiles("tool")).toHaveLength(1);
    expect(host.queue.getProfiles()).toHaveLength(2);
    expect(await host.queue.clearProfiles("tool")).toBe(1);
    expect((await host.store.listProfiles()).map(({ capability }) => capability)).toEqual([
      "other",
    ]);
    const job = await host.queue.submit("tool");
    await job.ended();
    const rows = await host.journal({ jobId: job.id });
    const decided = rows.find(({ eventType }) => eventType === "admission_decided");
    expect(decided?.payload["exclusive"]).toBe(true);
  });

  test("a job's log records are read by its id alone", async () => {
    const asked: unknown[] = [];
    await using host = await openQueue({
      diagnostics: {
        flush: () => Promise.resolve(),
        queryRecords: (filter) => {
          asked.push(filter);
          return Promise.resolve([]);
        },
      },
    });
    expect(await host.queue.getJobDiagnostics("job", { afterSeq: 7 })).toEqual([]);
    expect(asked).toEqual([{ jobId: "job", limit: 200, afterSeq: 7 }]);
  });
});
