/**
 * A host that can be killed at a chosen commit: the reference work on a real store, with workers that
 * write down what they run.
 *
 *     node test/support/crash-host.ts <data folder> <oracle file> [before|after|full|read-only|past|future <unit>]
 *
 * `before` and `after` kill it there, `full` fills its disk until a commit has failed, `read-only` makes
 * its disk read-only by an error and kills it when a commit has failed, `past` and `future` move its wall
 * clock by more than a year.
 *
 * It resumes what the folder holds, submits what it lacks, and prints how everything ended.
 */
import { appendFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { composition, item, type NodeSpec, ref } from "../../src/composition/index.ts";
import { CjmError } from "../../src/errors/index.ts";
import type { CompositionView } from "../../src/queue/index.ts";
import type { StorePort } from "../../src/store/index.ts";
import { type FakeCall, FakeExecutor, untilCancelled } from "./fake-executor.ts";
import { openQueue, type QueueHost } from "./queue-host.ts";
import { wrapStore } from "./wrap-store.ts";

const [dataDir = "", oracle = "", when = "never", unit = "0"] = process.argv.slice(2);

const FILLER = join(dataDir, "filler");
const YEAR_MS = 366 * 86_400_000;
const SMALL_DISK_BYTES = 64 * 1024 * 1024;

/** Leaves no room for another page; only on a small file system made for it. */
function fillDisk(): void {
  const { bavail, bsize, blocks } = statfsSync(dataDir);
  if (blocks * bsize > SMALL_DISK_BYTES) throw new Error("This disk is not one to be filled");
  try {
    writeFileSync(FILLER, Buffer.alloc(bavail * bsize));
  } catch (error) {
    // A file system may need some of the room for itself.
    if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
  }
}

/** From now on the wall clock of this process is another. */
function moveClock(byMs: number): void {
  const Real = Date;
  globalThis.Date = class extends Real {
    constructor(...given: unknown[]) {
      super(...((given.length === 0 ? [Real.now() + byMs] : given) as [number]));
    }
    static override now(): number {
      return Real.now() + byMs;
    }
  } as DateConstructor;
}

const FAULTS: Readonly<Record<string, () => void>> = {
  before: () => process.kill(process.pid, "SIGKILL"),
  full: fillDisk,
  "read-only": () => {
    writeFileSync(process.env["CJM_DISK_TRIGGER"] ?? "", "1");
  },
  past: () => {
    moveClock(-YEAR_MS);
  },
  future: () => {
    moveClock(YEAR_MS);
  },
};

/** Does to this process what it was told to before its n-th unit is staged, or kills it after that. */
function killing(store: StorePort): StorePort {
  let count = 0;
  store.onAvailability((isAvailable) => {
    if (isAvailable) return;
    if (when === "read-only") process.kill(process.pid, "SIGKILL");
    rmSync(FILLER, { force: true });
  });
  return wrapStore(store, {
    stage: async (writes) => {
      count += 1;
      const isLast = count === Number(unit);
      if (isLast) FAULTS[when]?.();
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

/** 30 nodes: a chain, a fan, a `for_each`, a node that is retried, one that is cached, a `when`, and a join of all. */
function reference() {
  const chain = Array.from({ length: 10 }, (_, n): [string, NodeSpec] => [
    `chain${n}`,
    node(`chain${n}`, n === 0 ? null : ref(`chain${n - 1}`, "node")),
  ]);
  const fan = Array.from({ length: 13 }, (_, n): [string, NodeSpec] => [
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
      cached: { ...node("cached", ref("each.0.node")), cache: true },
      again: {
        ...node("cached", ref("each.0.node")),
        cache: true,
        when: { value: ref("cached", "node"), equals: "cached" },
      },
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
executor.add("tool", {
  work,
  maxConcurrentRequests: 3,
  codeHash: "sha256:code",
  isRepeatable: true,
});
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
