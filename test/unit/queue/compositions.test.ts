import { rm } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { composition, item, ref } from "../../../src/composition/index.ts";
import { CjmError } from "../../../src/errors/index.ts";
import { newDataDir, openQueue, type QueueHost, told } from "../../support/queue-host.ts";
import { type FakeCall, untilCancelled } from "../../support/fake-executor.ts";

/** Answers with its kwargs; `fail` fails for good, `hold` waits for its cancel. */
async function work(call: FakeCall): Promise<unknown> {
  const { kwargs } = call;
  if (kwargs["fail"] === true) throw new CjmError("CAPABILITY_ERROR", "told to fail");
  if (kwargs["hold"] === true) await untilCancelled(call);
  return kwargs;
}
const node = (kwargs: Record<string, unknown> = {}) => ({ capability: "tool", kwargs });

async function open(options = {}): Promise<QueueHost> {
  const host = await openQueue({ scheduler: { maxLanes: 4, admission: "permissive" }, ...options });
  host.executor.add("tool", { work, maxConcurrentRequests: 4 });
  return host;
}
const states = (view: {
  nodes: readonly { id: string; state: string }[];
}): Record<string, string> => Object.fromEntries(view.nodes.map(({ id, state }) => [id, state]));

describe("a composition", () => {
  test("binds what upstream gave, at any depth, and ends with every result", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(
      composition(
        {
          a: node({ value: { list: [1, { deep: "x" }] } }),
          b: node({ nested: [{ got: ref("a", "value.list.1.deep") }] }),
        },
        { name: "two", runId: "run-7", actor: "me" },
      ),
    );
    const view = await run.result();
    expect(view.results["b"]).toEqual({ nested: [{ got: "x" }] });
    expect(view).toMatchObject({ name: "two", status: "completed" });
    const rows = await host.journal({ compositionId: run.id });
    expect(rows.every(({ runId, actor }) => runId === "run-7" && actor === "me")).toBe(true);
    expect(told(rows)).toEqual([
      "composition_submitted",
      "job_submitted",
      "admission_decided",
      "state_transition pending→running",
      "state_transition running→completed",
      "job_submitted",
      "admission_decided",
      "state_transition pending→running",
      "composition_advanced",
      "state_transition running→completed",
      "composition_advanced",
      "state_transition running→completed",
    ]);
    expect(rows[8]?.payload).toEqual({ completed_node: "a", enqueued_nodes: ["b"] });
  });

  test("may be empty", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(composition({}));
    expect(await run.result()).toMatchObject({ status: "completed", results: {} });
  });

  test("is refused with everything that is wrong, and nothing is stored", async () => {
    await using host = await open();
    const bad = composition({ a: { capability: "none" }, b: node({ x: ref("nowhere") }) });
    const refusal = await host.queue.submitComposition(bad).then(
      () => undefined,
      (error: unknown) => error as CjmError,
    );
    expect(refusal?.code).toBe("COMPOSITION_INVALID");
    expect(refusal?.message).toMatch(/none.*nowhere/su);
    expect(await host.journal()).toEqual([]);
  });

  test("a path that is missing at run time fails its node and skips what needs it", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(
      composition({ a: node(), b: node({ x: ref("a", "nope") }), c: node({ x: ref("b") }) }),
    );
    const view = await run.ended();
    expect(states(view)).toEqual({ a: "completed", b: "failed", c: "skipped" });
    expect(view.status).toBe("failed");
    expect(view.nodes[1]?.error?.code).toBe("COMPOSITION_BINDING");
    await expect(run.result()).rejects.toMatchObject({ code: "COMPOSITION_BINDING" });
  });
});

describe("after a failure", () => {
  const shape = {
    bad: node({ fail: true }),
    after: node({ x: ref("bad") }),
    slow: node({}),
    last: node({ x: ref("slow") }),
  };

  test("fail_fast starts nothing new and lets what runs end", async () => {
    await using host = await open();
    const finish = Promise.withResolvers<void>();
    host.executor.add("slow", async () => {
      await finish.promise;
      return "kept";
    });
    const run = await host.queue.submitComposition(
      composition({ ...shape, slow: { capability: "slow" } }),
    );
    for await (const event of run.events()) {
      if (event.nodeId === "bad" && event.payload["to"] === "failed") break;
    }
    finish.resolve();
    const view = await run.ended();
    expect(states(view)).toEqual({
      bad: "failed",
      after: "skipped",
      slow: "completed",
      last: "cancelled",
    });
    expect(view).toMatchObject({ status: "failed", results: { slow: "kept" } });
    await expect(run.result()).rejects.toThrow("told to fail");
  });

  test("fail_fast begins no new attempt of a member whose worker dies after the failure", async () => {
    await using host = await open({ maxRetries: 3 });
    host.executor.add("slow", untilCancelled);
    const run = await host.queue.submitComposition(
      composition({ ...shape, slow: { capability: "slow" } }),
    );
    for await (const event of run.events()) {
      if (event.nodeId === "bad" && event.payload["to"] === "failed") break;
    }
    host.executor.crash("slow");
    const view = await run.ended();
    expect(states(view)).toMatchObject({ slow: "failed", last: "cancelled" });
    const attempts = host.executor.calls.filter(({ instanceId }) => instanceId === "slow");
    expect(attempts).toHaveLength(1);
  });

  test("fail_fast begins nothing again when the next host resumes what had failed", async () => {
    const dataDir = await newDataDir();
    let id = "";
    {
      await using host = await open({ dataDir });
      host.executor.add("slow", untilCancelled);
      const run = await host.queue.submitComposition(
        composition({
          ...shape,
          slow: { capability: "slow" },
          each: { capability: "slow", kwargs: { n: item() }, forEach: [1, 2] },
        }),
      );
      id = run.id;
      for await (const event of run.events()) {
        if (event.nodeId === "bad" && event.payload["to"] === "failed") break;
      }
    }
    await using host = await open({ dataDir });
    host.executor.add("slow", () => "again");
    expect(await host.queue.resume(id)).toBe(true);
    const view = await host.queue.waitForComposition(id);
    expect(view.status).toBe("failed");
    expect(states(view)).toMatchObject({ bad: "failed", slow: "cancelled", each: "cancelled" });
    expect(host.executor.calls).toEqual([]);
    expect(await host.store.unfinishedJobs()).toEqual([]);
    await rm(dataDir, { recursive: true });
  });

  test("fail_fast cancels members that wait for a lane", async () => {
    await using host = await open({ scheduler: { maxLanes: 1, admission: "permissive" } });
    const run = await host.queue.submitComposition(
      composition({ bad: node({ fail: true }), other: node({}) }),
    );
    expect(states(await run.ended())).toEqual({ bad: "failed", other: "cancelled" });
    expect(host.executor.calls).toHaveLength(1);
  });

  test("without fail_fast everything that can run does, and the composition completes", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(composition(shape, { failFast: false }));
    const view = await run.ended();
    expect(states(view)).toEqual({
      bad: "failed",
      after: "skipped",
      slow: "completed",
      last: "completed",
    });
    expect(view.status).toBe("completed");
  });
});

describe("for_each", () => {
  test("calls once for each item and gives a list in input order", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(
      composition({
        list: node({ values: [3, 1, 2] }),
        each: { ...node({ n: item() }), forEach: ref("list", "values") },
        sum: node({ all: ref("each") }),
      }),
    );
    const view = await run.result();
    expect(view.results["sum"]).toEqual({ all: [{ n: 3 }, { n: 1 }, { n: 2 }] });
    expect(view.nodes[1]?.items?.map(({ state }) => state)).toEqual(Array(3).fill("completed"));
  });

  test("a failed item is an error in the list without fail_fast, and fails the node with it", async () => {
    await using host = await open();
    const nodes = {
      each: { ...node({ fail: item() }), forEach: [false, true, false] },
    };
    const kept = await host.queue.submitComposition(composition(nodes, { failFast: false }));
    const results = (await kept.result()).results["each"];
    expect(results).toMatchObject([
      { fail: false },
      { __error__: { code: "CAPABILITY_ERROR" } },
      { fail: false },
    ]);
    const failed = await (await host.queue.submitComposition(composition(nodes))).ended();
    expect(failed).toMatchObject({ status: "failed", nodes: [{ state: "failed" }] });
  });

  test("a list too large for a row is kept in a file, and resumed from it", async () => {
    const dataDir = await newDataDir();
    const values = [1, 2, 3].map((n) => `${n}`.repeat(200_000));
    let id = "";
    {
      await using host = await open({
        dataDir,
        scheduler: { maxLanes: 1, admission: "permissive" },
      });
      host.executor.add("slow", untilCancelled);
      const run = await host.queue.submitComposition(
        composition({ each: { capability: "slow", kwargs: { n: item() }, forEach: values } }),
      );
      id = run.id;
      await host.executor.sent(1);
      const [row] = await host.store.forEachItems(id);
      expect(row).toMatchObject({ count: 3, items: { kind: "file" } });
    }
    await using host = await open({ dataDir });
    host.executor.add("slow", ({ kwargs }) => String(kwargs["n"]).length);
    expect(await host.queue.resume(id)).toBe(true);
    expect((await host.queue.waitForComposition(id)).results["each"]).toEqual(
      Array(3).fill(200_000),
    );
    await rm(dataDir, { recursive: true });
  });

  test("a list that is too long fails its node, however large it is", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(
      composition({
        list: node({ values: Array.from({ length: 10_001 }, () => "x".repeat(30)) }),
        each: { ...node({ n: item() }), forEach: ref("list", "values") },
      }),
    );
    const view = await run.ended();
    expect(states(view)).toEqual({ list: "completed", each: "failed" });
    expect(view.nodes[1]?.error?.code).toBe("COMPOSITION_BINDING");
  });

  test("an empty list is an empty result", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(
      composition({ each: { ...node(), forEach: [] }, next: node({ all: ref("each") }) }),
    );
    expect((await run.result()).results).toMatchObject({ each: [], next: { all: [] } });
  });
});

describe("when", () => {
  test("skips a node and what needs it, unless that takes null instead", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(
      composition({
        a: node({ score: 1 }),
        b: { ...node({ x: 1 }), when: { value: ref("a", "score"), at_least: 2 } },
        strict: node({ x: ref("b") }),
        easy: node({ x: { $ref: "b", optional: true } }),
      }),
    );
    const view = await run.result();
    expect(states(view)).toEqual({
      a: "completed",
      b: "skipped",
      strict: "skipped",
      easy: "completed",
    });
    expect(view.results["easy"]).toEqual({ x: null });
  });
});

describe("options of one node", () => {
  test("its own priority, timeout and retries; priority 0 inherits", async () => {
    await using host = await open();
    host.executor.add("slow", untilCancelled);
    const run = await host.queue.submitComposition(
      composition(
        {
          own: { ...node(), priority: 7 },
          inherits: node(),
          slow: { capability: "slow", timeoutMs: 10, retries: 0 },
        },
        { priority: 3, failFast: false },
      ),
    );
    const view = await run.ended();
    const jobs = await Promise.all(view.nodes.map(({ jobId }) => host.queue.getJob(jobId ?? "")));
    expect(jobs.map((job) => job?.priority)).toEqual([7, 3, 3]);
    expect(jobs[2]).toMatchObject({
      status: "failed",
      attempt: 1,
      error: { code: "CAPABILITY_TIMEOUT" },
    });
  });
});

describe("cancelling a composition", () => {
  test("writes the intent first, then its members; the run is cancelled", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(
      composition({ a: node({ hold: true }), b: node({ x: ref("a") }), c: node({ hold: true }) }),
    );
    await host.executor.sent(2);
    expect(await run.cancel()).toBe(true);
    const view = await run.ended();
    expect(view).toMatchObject({ status: "cancelled", cancelRequested: true });
    expect(states(view)).toEqual({ a: "cancelled", b: "cancelled", c: "cancelled" });
    const rows = (await host.journal({ compositionId: run.id })).filter(
      ({ eventType }) => eventType === "cancel_phase_changed",
    );
    expect(rows[0]?.jobId).toBeNull();
    expect(rows.slice(1).every(({ jobId }) => jobId !== null)).toBe(true);
    expect(await run.cancel()).toBe(false);
  });

  test("cancelling one member cancels what needs it", async () => {
    await using host = await open();
    const run = await host.queue.submitComposition(
      composition({ a: node({ hold: true }), b: node({ x: ref("a") }) }, { failFast: false }),
    );
    const call = await host.executor.sent(1);
    await host.queue.cancel(call.jobId);
    const view = await run.ended();
    expect(states(view)).toEqual({ a: "cancelled", b: "skipped" });
    expect(view.status).toBe("cancelled");
  });
});

describe("compositions that are over", () => {
  test("leave memory and are read from the store, from any host", async () => {
    const dataDir = await newDataDir();
    let id = "";
    {
      await using host = await open({ dataDir, history: 1 });
      const run = await host.queue.submitComposition(
        composition(
          { a: node({ n: 1 }), each: { ...node({ fail: item() }), forEach: [false, true] } },
          { failFast: false },
        ),
      );
      id = run.id;
      const live = await run.ended();
      await (await host.queue.submitComposition(composition({ z: node() }))).ended();
      expect(host.queue.hasComposition(id)).toBe(false);
      expect(host.queue.getCompositions()).toHaveLength(1);
      expect(await host.queue.getComposition(id)).toEqual(live);
      expect(await run.ended()).toEqual(live);
    }
    await using host = await open({ dataDir });
    expect(await host.queue.getComposition(id)).toMatchObject({
      status: "completed",
      results: {
        a: { n: 1 },
        each: [{ fail: false }, { __error__: { code: "CAPABILITY_ERROR" } }],
      },
    });
    expect(await host.queue.getComposition("none")).toBeUndefined();
    expect(await host.queue.resume(id)).toBe(false);
    await expect(host.queue.waitForComposition("none")).rejects.toMatchObject({
      code: "JOB_UNKNOWN",
    });
  });
});
