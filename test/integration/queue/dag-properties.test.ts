import {
  type Arbitrary,
  array,
  assert,
  asyncProperty,
  boolean,
  constantFrom,
  integer,
  nat,
  option,
  record,
} from "fast-check";
import { afterAll, expect, test } from "vitest";
import type { CompositionHandle, CompositionView } from "../../../src/queue/index.ts";
import { type JournalEvent, type NodeRecord, WHOLE_NODE } from "../../../src/store/index.ts";
import type { FakeCall } from "../../support/fake-executor.ts";
import { openQueue } from "../../support/queue-host.ts";
import {
  type Act,
  actOf,
  compose,
  DagWorkers,
  place,
  type PlacedNode,
  SINGLE,
} from "./random-dag.ts";

const act = constantFrom<Act>("answers", "answers", "answers", "fails", "dies", "hangs");

const plan = record({
  tool: constantFrom("lonely", "shared"),
  needs: array(record({ node: nat(), optional: boolean() }), { maxLength: 3 }),
  when: constantFrom("yes", "yes", "yes", "no", "upstream"),
  each: constantFrom("single", "single", "literal", "upstream"),
  says: boolean(),
  gives: integer({ min: 0, max: 3 }),
  acts: array(act, { minLength: 1, maxLength: 3 }),
  turns: nat({ max: 3 }),
});

const works = record({
  plans: array(plan, { minLength: 1, maxLength: 9 }),
  failFast: boolean(),
  /** The composition is cancelled as soon as so many calls were sent. */
  cancelAt: option(integer({ min: 1, max: 9 }), { nil: undefined, freq: 3 }),
});

type Works = typeof works extends Arbitrary<infer Value> ? Value : never;
const PLAIN: Works["plans"][number] = {
  tool: "shared",
  needs: [],
  when: "yes",
  each: "single",
  says: true,
  gives: 3,
  acts: ["answers"],
  turns: 0,
};
/** Comes first, when no worker is loaded: of two calls to one worker one dies, and takes the other with it. */
const TWO_FIRST_CALLS: Works = {
  plans: [
    { ...PLAIN, turns: 2 },
    { ...PLAIN, tool: "lonely", needs: [{ node: 0, optional: false }] },
    { ...PLAIN, acts: ["dies", "answers"] },
  ],
  failFast: false,
  cancelAt: undefined,
};

/** How often each way to end was seen; a search that never meets one proves nothing about it. */
const seen: Record<string, number> = {};
const host = await openQueue({ scheduler: { maxLanes: 3, admission: "permissive" } });
let onCall: (call: FakeCall) => Promise<unknown> = () => Promise.reject(new TypeError("unused"));
host.executor
  .add("lonely", (call) => onCall(call))
  .add("shared", { work: (call) => onCall(call), maxConcurrentRequests: 2 });
afterAll(() => host[Symbol.asyncDispose]());

test("any composition ends by the rules, nothing before its inputs and nothing twice", async () => {
  await assert(
    asyncProperty(works, async ({ plans, failFast, cancelAt }) => {
      const nodes = place(plans);
      const workers = new DagWorkers(nodes);
      const submitted = Promise.withResolvers<CompositionHandle>();
      let calls = 0;
      onCall = async (call) => {
        calls += 1;
        if (calls === cancelAt) void submitted.promise.then((run) => run.cancel());
        const worker = workersEnded(call);
        const answer = await workers.run(call, (jobId) => void host.queue.cancel(jobId));
        // What a worker says after it was ended for another call's sake reaches nobody.
        if (workersEnded(call) === worker) workers.answered(answer);
        return answer;
      };
      submitted.resolve(await host.queue.submitComposition(compose(nodes, failFast)));
      const run = await submitted.promise;
      const view = await run.ended();
      const journal = await host.journal({ compositionId: run.id });
      const stored = await host.store.nodeRuns(run.id);
      expect(workers.wrong).toEqual([]);
      checkNodes(nodes, { view, stored, failFast });
      checkStatus(view, failFast);
      checkJournal(journal, stored, failFast);
      for (const { state } of stored) seen[state] = (seen[state] ?? 0) + 1;
      seen[`run ${view.status}`] = (seen[`run ${view.status}`] ?? 0) + 1;
    }),
    { numRuns: 300, examples: [[TWO_FIRST_CALLS]] },
  );
  const ways = ["completed", "failed", "cancelled", "skipped"];
  const runs = ["run completed", "run failed", "run cancelled"];
  expect(new Set(Object.keys(seen))).toEqual(new Set([...ways, ...runs]));
}, 30_000);

function workersEnded({ instanceId }: FakeCall): number {
  return host.executor.ended.filter((end) => end.instanceId === instanceId).length;
}

interface Outcome {
  readonly view: CompositionView;
  readonly stored: readonly NodeRecord[];
  readonly failFast: boolean;
}

/** What the store says of each node must follow from what it says of the node's sources. */
function checkNodes(nodes: readonly PlacedNode[], { view, stored, failFast }: Outcome): void {
  const rows = new Map(
    stored.filter(({ itemIndex }) => itemIndex === WHOLE_NODE).map((row) => [row.nodeId, row]),
  );
  const placed = new Map(nodes.map((node) => [node.id, node]));
  const mayHalt = view.cancelRequested || (failFast && stored.some(isFailed));
  const halted = mayHalt ? ["cancelled"] : [];
  // After the first failure a lost worker is no reason for another attempt.
  const isOver = failFast && stored.filter(isFailed).length > 1;
  const givenUp = (act: Act): readonly string[] => (isOver && act === "dies" ? ["failed"] : []);
  for (const node of nodes) {
    const row = rows.get(node.id);
    const items = stored.filter(
      ({ nodeId, itemIndex }) => nodeId === node.id && itemIndex !== WHOLE_NODE,
    );
    expect(view.nodes.find(({ id }) => id === node.id)).toMatchObject({
      state: row?.state,
      jobId: row?.jobId ?? null,
    });
    const expected = stateOf(node, { placed, rows, items, failFast });
    const allowed = [expected.state, ...halted, ...givenUp(actOf(node, SINGLE))];
    expect(allowed, `the state of ${node.id}`).toContain(row?.state);
    if (!mayHalt) expect(items, `the items of ${node.id}`).toHaveLength(expected.items);
    for (const { itemIndex, state } of items) {
      const act = actOf(node, itemIndex);
      expect([ENDS[act], ...halted, ...givenUp(act)], `item ${itemIndex} of ${node.id}`).toContain(
        state,
      );
    }
  }
}

const ENDS = {
  answers: "completed",
  dies: "completed",
  fails: "failed",
  hangs: "cancelled",
} as const satisfies Record<Act, string>;

interface Known {
  readonly placed: ReadonlyMap<string, PlacedNode>;
  readonly rows: ReadonlyMap<string, NodeRecord>;
  readonly items: readonly NodeRecord[];
  readonly failFast: boolean;
}

/** How a node ends, given its sources, where nothing halts the composition. */
function stateOf(node: PlacedNode, known: Known): { state: string; items: number } {
  const first = known.placed.get(node.first ?? "");
  const without = withoutRunning(node, first, known.rows);
  if (without !== null) return { state: without, items: 0 };
  if (node.each === "single") return { state: ENDS[actOf(node, SINGLE)], items: 0 };
  const items = (node.each === "upstream" ? first?.gives : node.gives) ?? 0;
  if (known.failFast && known.items.some(isFailed)) return { state: "failed", items };
  const isCancelled = known.items.some(({ state }) => state === "cancelled");
  return { state: isCancelled ? "cancelled" : "completed", items };
}

/** How a node ends that makes no call; null where it makes one. */
function withoutRunning(
  { sources, when, each }: PlacedNode,
  first: PlacedNode | undefined,
  rows: Known["rows"],
): "skipped" | "failed" | null {
  const isMissing = [...sources].some(([source, isOptional]) => {
    const { state, skipCause } = rows.get(source) ?? {};
    return state !== "completed" && !(isOptional && skipCause === "when");
  });
  if (isMissing || when === "no") return "skipped";
  // What a `for_each` gives is a list, which has no member called `says` or `gives`.
  const isList = first !== undefined && first.each !== "single";
  if (isList && (when === "upstream" || each === "upstream")) return "failed";
  return when === "upstream" && first?.says !== true ? "skipped" : null;
}

function isFailed({ state }: { readonly state: string }): boolean {
  return state === "failed";
}

/** The cancel of the user is above everything, then a failure that halts, then any other cancel. */
function checkStatus({ status, cancelRequested, nodes }: CompositionView, failFast: boolean): void {
  const isCancelled = nodes.some(({ state }) => state === "cancelled");
  const withoutRequest = isCancelled ? "cancelled" : "completed";
  const ofNodes = failFast && nodes.some(isFailed) ? "failed" : withoutRequest;
  expect(status).toBe(cancelRequested ? "cancelled" : ofNodes);
}

const TERMINAL = new Set<unknown>(["completed", "failed", "cancelled"]);

/** One job for each node and item that ran, and one terminal row for each job and for the run. */
function checkJournal(
  journal: readonly JournalEvent[],
  stored: readonly NodeRecord[],
  failFast: boolean,
): void {
  const submitted = journal.filter(({ eventType }) => eventType === "job_submitted");
  const jobs = stored.flatMap(({ jobId }) => (jobId === null ? [] : [jobId]));
  expect(submitted).toHaveLength(jobs.length);
  expect(new Set(submitted.map(({ jobId }) => jobId))).toEqual(new Set(jobs));
  for (const jobId of [...jobs, null]) {
    const steps = journal
      .filter((row) => row.eventType === "state_transition" && row.jobId === jobId)
      .map(({ payload }) => payload["to"]);
    expect(steps.filter((to) => TERMINAL.has(to))).toHaveLength(1);
    expect(TERMINAL.has(steps.at(-1))).toBe(true);
  }
  if (!failFast) return;
  const transitions = journal.filter(
    ({ jobId, eventType }) => jobId !== null && eventType === "state_transition",
  );
  const failure = transitions.findIndex(({ payload }) => payload["to"] === "failed");
  const later = failure === -1 ? [] : transitions.slice(failure);
  // What ran then goes on to its end, a repetition included.
  const begun = later.filter(
    ({ payload }) => payload["to"] === "running" && payload["attempt"] === 1,
  );
  expect(begun).toEqual([]);
}
