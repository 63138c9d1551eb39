import { heapCompact, heapPop, heapPush, type HeapEntry } from "./heap.ts";
import type { Instance, JobClass, Line, PendingJob, SchedulerState } from "./state.ts";
import type { JobRequest } from "./types.ts";

const SEPARATOR = "\u0000";
const ANYWHERE = "*";

/** Puts a job among the pending ones. O(log n). */
export function addPending(state: SchedulerState, job: Omit<PendingJob, "lineId">): void {
  const line = lineFor(state, job.request);
  state.pending.set(job.request.jobId, { ...job, lineId: line.id });
  heapPush(line.heap, { rank: job.request.seq, id: job.request.jobId });
  line.size++;
  updateLine(state, line);
}

/** Takes a job out of the pending ones, wherever it stands. O(log n) amortized. */
export function removePending(state: SchedulerState, jobId: string): PendingJob | undefined {
  const job = state.pending.get(jobId);
  if (job === undefined) return undefined;
  state.pending.delete(jobId);
  const line = state.lines.get(job.lineId);
  if (line !== undefined) {
    line.size--;
    heapCompact(line.heap, line.size, (entry) => isInLine(state, line, entry));
    updateLine(state, line);
  }
  return job;
}

/** The job of a class that is first in order. */
export function classHead(state: SchedulerState, jobClass: JobClass): PendingJob | undefined {
  const top = liveTop(jobClass.heap, (entry) => isInClass(state, jobClass, entry));
  const line = top === undefined ? undefined : state.lines.get(top.id);
  return line === undefined ? undefined : lineHead(state, line);
}

/** Puts the lines of an instance where its state says, and has them examined in the next step. */
export function regroup(state: SchedulerState, instance: Instance): void {
  for (const id of instance.lines) {
    const line = state.lines.get(id);
    if (line !== undefined) enterClass(state, line);
  }
}

/** Where a class stands among the others: higher priority first, then the earlier head. */
export function isBefore(a: JobRequest, b: JobRequest): boolean {
  return a.priority === b.priority ? a.seq < b.seq : a.priority > b.priority;
}

/** An instance without a process is the same to the ladder as any other without one. */
export function isUnplaced(instance: Instance): boolean {
  return instance.state === "absent" && instance.running.size === 0;
}

function lineFor(state: SchedulerState, request: JobRequest): Line {
  const { instanceId } = request;
  const id = [instanceId, kindOf(request)].join(SEPARATOR);
  let line = state.lines.get(id);
  if (line === undefined) {
    line = {
      id,
      instanceId,
      request,
      heap: [],
      size: 0,
      classId: "",
      headRank: Infinity,
      pushedRank: Infinity,
    };
    state.lines.set(id, line);
    state.instances.get(instanceId)?.lines.add(id);
  }
  return line;
}

function kindOf(request: JobRequest): string {
  return [request.profileKey, request.priority, request.vramLimitMb ?? ""].join(SEPARATOR);
}

function lineHead(state: SchedulerState, line: Line): PendingJob | undefined {
  const top = liveTop(line.heap, (entry) => isInLine(state, line, entry));
  return top === undefined ? undefined : state.pending.get(top.id);
}

function isInLine(state: SchedulerState, line: Line, { id, rank }: HeapEntry): boolean {
  const job = state.pending.get(id);
  return job?.lineId === line.id && job.request.seq === rank;
}

function isInClass(state: SchedulerState, { id: classId }: JobClass, entry: HeapEntry): boolean {
  const line = state.lines.get(entry.id);
  return line?.classId === classId && line.headRank === entry.rank;
}

/** Entries of jobs and lines that have moved on are dropped when they come to the top. */
function liveTop(heap: HeapEntry[], isLive: (entry: HeapEntry) => boolean): HeapEntry | undefined {
  let top = heap[0];
  while (top !== undefined && !isLive(top)) {
    heapPop(heap);
    top = heap[0];
  }
  return top;
}

function updateLine(state: SchedulerState, line: Line): void {
  if (line.size === 0) {
    leaveClass(state, line);
    state.lines.delete(line.id);
    state.instances.get(line.instanceId)?.lines.delete(line.id);
    return;
  }
  const headRank = lineHead(state, line)?.request.seq ?? Infinity;
  if (headRank === line.headRank) return;
  line.headRank = headRank;
  enterClass(state, line);
}

function enterClass(state: SchedulerState, line: Line): void {
  const instance = state.instances.get(line.instanceId);
  const place = instance === undefined || isUnplaced(instance) ? ANYWHERE : `=${line.instanceId}`;
  const classId = [place, kindOf(line.request)].join(SEPARATOR);
  const jobClass = state.classes.get(classId);
  const isNew = line.classId !== classId;
  if (isNew) leaveClass(state, line);
  const joined = jobClass ?? newClass(state, classId, line.request.priority);
  if (isNew) {
    line.classId = classId;
    joined.size++;
  }
  if (isNew || line.pushedRank !== line.headRank) {
    line.pushedRank = line.headRank;
    heapPush(joined.heap, { rank: line.headRank, id: line.id });
    heapCompact(joined.heap, joined.size, (entry) => isInClass(state, joined, entry));
  }
  wake(state, classId);
}

function newClass(state: SchedulerState, id: string, priority: number): JobClass {
  const jobClass = { id, priority, heap: [], size: 0, demand: null, knowledge: -1 };
  state.classes.set(id, jobClass);
  return jobClass;
}

function leaveClass(state: SchedulerState, line: Line): void {
  const jobClass = state.classes.get(line.classId);
  line.classId = "";
  if (jobClass === undefined) return;
  jobClass.size--;
  if (jobClass.size > 0) {
    wake(state, jobClass.id);
    return;
  }
  state.classes.delete(jobClass.id);
  state.awake.delete(jobClass.id);
  // Its head may have held a place.
  state.host.changed = true;
}

function wake(state: SchedulerState, classId: string): void {
  state.awake.add(classId);
  state.fresh.add(classId);
}
