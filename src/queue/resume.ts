import {
  type CompositionRun,
  expandForEach,
  recordItemStarted,
  recordStarted,
  type RestoredItem,
  type RestoredNode,
  restoreRun,
} from "../composition/index.ts";
import { CjmError, toJobError } from "../errors/index.ts";
import {
  type CompositionRecord,
  type JobRecord,
  type NodeRecord,
  type ResultFiles,
  type StorePort,
  WHOLE_NODE,
} from "../store/index.ts";
import type { ActiveRun } from "./active-run.ts";
import type { CompositionRunner } from "./composition-runner.ts";
import { putNode } from "./composition-rows.ts";
import { resultReader, storedComposition } from "./composition-view.ts";
import { end } from "./endings.ts";
import { type JobEntry, newEntry, viewOfRecord } from "./job.ts";
import type { JobQueue } from "./queue.ts";
import type { Unit } from "./unit.ts";

export interface ResumeParts {
  readonly queue: JobQueue;
  readonly compositions: CompositionRunner;
  readonly store: StorePort;
  readonly results: ResultFiles;
}

/** Continues one composition or single job that an earlier host left. */
export async function resumeWork(id: string, parts: ResumeParts): Promise<boolean> {
  const { queue, compositions, store } = parts;
  if (compositions.active.has(id) || queue.peek(id) !== undefined) return false;
  const composition = await store.getComposition(id);
  if (composition !== undefined) {
    if (composition.status !== "running") return false;
    await resumeComposition(composition, parts);
    return true;
  }
  const job = await store.getJob(id);
  if (job === undefined) throw new CjmError("JOB_UNKNOWN", `There is no job or composition ${id}`);
  if (job.status !== "pending" && job.status !== "running") return false;
  if (job.compositionId !== null) return await resumeWork(job.compositionId, parts);
  const entry = entryOf(job, queue);
  await queue.loop.transact((unit) => {
    readmit(entry, { job, isHalted: false }, queue, unit);
  });
  return true;
}

/** Unfinished work of the store that nothing in memory stands for, oldest first. */
export async function resumableIds(queue: JobQueue, store: StorePort): Promise<readonly string[]> {
  const compositions = await store.unfinishedCompositions();
  const jobs = await store.unfinishedJobs();
  return [
    ...compositions.map(({ id }) => id).filter((id) => !queue.hasComposition(id)),
    ...jobs
      .filter((job) => job.compositionId === null && queue.peek(job.id) === undefined)
      .map(({ id }) => id),
  ];
}

async function resumeComposition(record: CompositionRecord, parts: ResumeParts): Promise<void> {
  const { queue, compositions } = parts;
  const composition = storedComposition(record);
  for (const [id, declaration] of Object.entries(composition.instances)) {
    queue.declareInstance(id, declaration);
  }
  const stored = await readRun(record.id, parts);
  const { run, skipped } = restoreRun(composition, record.id, stored.nodes);
  run.cancelRequested = record.cancelRequested;
  const active = compositions.adopt(run, record.submittedAt);
  const members = await membersOf(run, stored, parts);
  await queue.loop.transact((unit) => {
    for (const id of skipped) putNode(queue.loop, active, id, unit);
    expandAgain(active, stored);
    for (const { entry } of members) bindMember(active, entry);
    const isHalted = record.cancelRequested || (composition.failFast && hasFailed(stored));
    if (isHalted) compositions.haltNodes(active, unit);
    for (const { job, entry } of members) readmit(entry, { job, isHalted }, queue, unit);
    if (!isHalted) startMissingItems(active, compositions, unit);
    compositions.advance(active, unit);
  });
}

/** Its failure was committed: what it interrupted is not begun again. */
function hasFailed({ nodes, expansions }: StoredRun): boolean {
  const items = [...expansions.values()].flatMap((expansion) => expansion.items);
  return [...nodes, ...items].some(({ state }) => state === "failed");
}

/** The jobs that were interrupted; those of cached nodes with the key under which they are kept. */
async function membersOf(
  run: CompositionRun,
  { unfinished }: StoredRun,
  { queue, compositions }: ResumeParts,
): Promise<readonly { readonly job: JobRecord; readonly entry: JobEntry }[]> {
  return await Promise.all(
    unfinished.map(async (job) => {
      const node = run.nodes.get(job.nodeId ?? "");
      const cacheKey = node === undefined ? null : await compositions.cacheKeyOf(node, job.kwargs);
      return { job, entry: entryOf(job, queue, cacheKey) };
    }),
  );
}

/** What the store has of a run. */
interface StoredRun {
  readonly nodes: readonly RestoredNode[];
  /** Node id to the values it was expanded to and the items that are over. */
  readonly expansions: ReadonlyMap<
    string,
    { readonly values: readonly unknown[]; readonly items: readonly RestoredItem[] }
  >;
  readonly unfinished: readonly JobRecord[];
}

async function readRun(compositionId: string, { store, results }: ResumeParts): Promise<StoredRun> {
  const jobs = new Map((await store.listJobs({ compositionId })).map((job) => [job.id, job]));
  const rows = await store.nodeRuns(compositionId);
  const resultOf = await resultReader(compositionId, { store, results });
  const expansions = new Map<string, { values: unknown[]; items: RestoredItem[] }>();
  for (const { nodeId, items } of await store.forEachItems(compositionId)) {
    const values = await results.load(items);
    expansions.set(nodeId, { values: Array.isArray(values) ? values : [], items: [] });
  }
  const nodes: RestoredNode[] = [];
  for (const row of rows.filter(({ state }) => state !== "pending" && state !== "running")) {
    const items = expansions.get(row.nodeId)?.items;
    const restored = terminalRow(row, await resultOf(row));
    if (row.itemIndex === WHOLE_NODE && items === undefined) nodes.push(restored);
    else if (row.itemIndex !== WHOLE_NODE && restored.state !== "skipped") {
      items?.push({ ...restored, index: row.itemIndex, state: restored.state });
    }
  }
  const unfinished = [...jobs.values()].filter(
    ({ status }) => status === "pending" || status === "running",
  );
  return { nodes, expansions, unfinished };
}

function terminalRow(row: NodeRecord, result: unknown): RestoredNode {
  const { state } = row;
  if (state === "pending" || state === "running") {
    throw new TypeError(`Node "${row.nodeId}" is ${state}, not over`);
  }
  return {
    id: row.nodeId,
    state,
    result,
    jobId: row.jobId ?? undefined,
    error: row.error ?? undefined,
    skipCause: row.skipCause ?? undefined,
  };
}

/** Expands `for_each` nodes as they were; one that was over ends again, with the same result. */
function expandAgain({ run }: ActiveRun, { expansions }: StoredRun): void {
  for (;;) {
    const next = [...run.ready].find((id) => expansions.has(id));
    const expansion = expansions.get(next ?? "");
    if (next === undefined || expansion === undefined) return;
    expandForEach(run, next, expansion.values, expansion.items);
  }
}

function bindMember({ run, members }: ActiveRun, entry: JobEntry): void {
  const { id, nodeId, itemIndex } = entry.spec;
  if (nodeId === null) return;
  members.set(id, entry);
  if (itemIndex === null) recordStarted(run, nodeId, id);
  else recordItemStarted(run, { nodeId, index: itemIndex }, id);
}

function startMissingItems(active: ActiveRun, compositions: CompositionRunner, unit: Unit): void {
  for (const { id, state, items } of active.run.nodeRuns.values()) {
    const node = active.run.nodes.get(id);
    if (state !== "running" || items === undefined || node === undefined) continue;
    compositions.startItems(active, node, unit);
  }
}

/**
 * Gives an interrupted job to the scheduler; a committed intent to cancel, and what a failure of its
 * composition halts, is finished instead.
 */
function readmit(
  entry: JobEntry,
  { job: record, isHalted }: { readonly job: JobRecord; readonly isHalted: boolean },
  queue: JobQueue,
  unit: Unit,
): void {
  queue.loop.jobs.add(entry);
  if (record.cancelRequestedAt !== null || isHalted) {
    const why =
      record.cancelRequestedAt === null
        ? "Interrupted after its composition had failed or was cancelled"
        : "Cancelled before the host was restarted";
    const error = new CjmError("CAPABILITY_CANCELLED", why);
    end(queue.loop, entry, { status: "cancelled", error: toJobError(error) }, unit);
    return;
  }
  if (record.status === "running") {
    queue.loop.jobs.plan(entry, "pending");
    unit.jobEvent(entry, "state_transition", { from: "running", to: "pending", resumed: true });
    unit.updateJob(entry, { status: "pending" }, (job) => {
      queue.loop.jobs.commit(job, "pending");
    });
  }
  queue.loop.enqueue(entry, unit);
}

function entryOf(record: JobRecord, queue: JobQueue, cacheKey: string | null = null): JobEntry {
  const view = viewOfRecord(record, undefined);
  const { codeHash } = queue.factsOf(record.capabilityInstanceId);
  const entry = newEntry(
    { ...view, codeHash },
    { priority: record.priority, seq: queue.loop.nextSeq(), chunks: null, cacheKey },
  );
  entry.status = record.status;
  entry.planned = record.status;
  entry.attempt = record.attempt;
  entry.retryCount = record.retryCount;
  return entry;
}
