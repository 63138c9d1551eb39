/**
 * A host that can be killed at a chosen commit: the reference work on a real store, with workers that
 * write down what they run.
 *
 *     node test/support/crash-host.ts <data folder> <oracle file> [before|after <unit>]
 *
 * It resumes what the folder holds, submits what it lacks, and prints how everything ended.
 */
import { appendFileSync } from "node:fs";
import { composition, item, type NodeSpec, ref } from "../../src/composition/index.ts";
import { CjmError } from "../../src/errors/index.ts";
import type { CompositionView } from "../../src/queue/index.ts";
import type { StorePort } from "../../src/store/index.ts";
import { type FakeCall, FakeExecutor, untilCancelled } from "./fake-executor.ts";
import { openQueue, type QueueHost } from "./queue-host.ts";
import { wrapStore } from "./wrap-store.ts";

const [dataDir = "", oracle = "", when = "never", unit = "0"] = process.argv.slice(2);

/** Kills this process before its n-th unit is staged, or when it has been committed. */
function killing(store: StorePort): StorePort {
  let count = 0;
  return wrapStore(store, {
    stage: async (writes) => {
      count += 1;
      const isLast = count === Number(unit);
      if (isLast && when === "before") process.kill(process.pid, "SIGKILL");
      const staged = await store.stage(writes);
      if (isLast && when === "after") process.kill(process.pid, "SIGKILL");
      return staged;
    },
  });
}

async function work(call: FakeCall): Promise<unknown> {
  const { kwargs, attempt } = call;
  const name = kwargs["name"];
  const node = typeof name === "string" ? name : "?";
  const line = { node, job: call.jobId, attempt, pid: process.pid };
  appendFileSync(oracle, `${JSON.stringify(line)}\n`);
  if (kwargs["hold"] === true) await untilCancelled(call);
  // Fails whenever it is tried for the first time by this process's count of attempts.
  if (kwargs["flaky"] === true && attempt === 1) {
    throw new CjmError("CAPABILITY_RESOURCE", "out of memory, as told");
  }
  return { node, got: kwargs["in"] ?? null, list: [1, 2, 3] };
}

const node = (
  name: string,
  input: unknown = null,
  more: Record<string, unknown> = {},
): NodeSpec => ({
  capability: "tool",
  kwargs: { name, in: input, ...more },
});

/** 30 nodes: a chain, a fan, a `for_each`, a node that is retried, a `when`, and a join of all. */
function reference() {
  const chain = Array.from({ length: 10 }, (_, n): [string, NodeSpec] => [
    `chain${n}`,
    node(`chain${n}`, n === 0 ? null : ref(`chain${n - 1}`, "node")),
  ]);
  const fan = Array.from({ length: 14 }, (_, n): [string, NodeSpec] => [
    `fan${n}`,
    node(`fan${n}`, ref(`chain${n % 3}`, "node")),
  ]);
  return composition(
    {
      ...Object.fromEntries([...chain, ...fan]),
      flaky: { ...node("flaky", ref("chain0", "node"), { flaky: true }), retries: 2 },
      each: {
        capability: "tool",
        kwargs: { name: "each", in: item() },
        forEach: ref("chain1", "list"),
      },
      skipped: { ...node("skipped"), when: { value: ref("chain0", "node"), equals: "no" } },
      easy: node("easy", { $ref: "skipped", optional: true }),
      cached: node("cached", ref("each.0.node")),
      join: node("join", Object.fromEntries(fan.map(([id]) => [id, ref(id, "node")]))),
    },
    { name: "reference" },
  );
}

const cancelled = composition(
  {
    before: node("cancel-before"),
    hold: node("cancel-hold", ref("before", "node"), { hold: true }),
    after: node("cancel-after", ref("hold")),
  },
  { name: "cancelled" },
);

async function idOf(host: QueueHost, name: string): Promise<string> {
  const stored = (await host.store.listCompositions()).find((one) => one.name === name);
  if (stored !== undefined) return stored.id;
  const submitted = name === "reference" ? reference() : cancelled;
  return (await host.queue.submitComposition(submitted)).id;
}

function shown(view: CompositionView): unknown {
  return {
    status: view.status,
    states: Object.fromEntries(view.nodes.map(({ id, state }) => [id, state])),
    results: view.results,
  };
}

const executor = new FakeExecutor();
executor.add("tool", { work, maxConcurrentRequests: 3 });
await using host = await openQueue({
  dataDir,
  executor,
  wrap: killing,
  scheduler: { maxLanes: 3, admission: "permissive" },
});
const { queue } = host;
for (const id of await queue.resumable()) await queue.resume(id);
const single =
  (await host.store.listJobs()).find((job) => job.compositionId === null)?.id ??
  (await queue.submit("tool", { name: "single" })).id;
const cancelId = await idOf(host, "cancelled");
const referenceId = await idOf(host, "reference");
if ((await queue.getComposition(cancelId))?.status === "running") {
  for await (const event of queue.eventsForComposition(cancelId)) {
    if (event.nodeId === "hold" && event.payload["to"] === "running") break;
  }
  await queue.cancelComposition(cancelId);
}
console.log(
  JSON.stringify({
    reference: shown(await queue.waitForComposition(referenceId)),
    cancelled: shown(await queue.waitForComposition(cancelId)),
    single: await queue.resultOf(single),
  }),
);
