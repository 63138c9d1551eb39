export { CompositionHandle } from "./composition-handle.ts";
export { storedComposition, storedView } from "./composition-view.ts";
export type { CompositionView, NodeView } from "./composition-view.ts";
export { ContentHashes } from "./content-hash.ts";
export { explainComposition, explainJob } from "./explain.ts";
export type { Explanation, Span, SpanKind } from "./explain.ts";
export type { QueueEvent } from "./events.ts";
export type {
  CallInputs,
  CallTarget,
  ExecutableCall,
  ExecutionEvents,
  ExecutionOutcome,
  Executor,
  InstanceChange,
  InstanceFacts,
} from "./executor.ts";
export { JobHandle } from "./job-handle.ts";
export type { CancelPhase, JobView } from "./job.ts";
export { ProfileBook } from "./profile-book.ts";
export { JobQueue } from "./queue.ts";
export type { JobCounts } from "./job-table.ts";
export type { JobSnapshot } from "./machine-watch.ts";
export type { QueueOptions } from "./queue.ts";
export type { RunContext, SubmitOptions } from "./submission.ts";
export type { ResourceProbe, ResourceSnapshot } from "./resource-probe.ts";
export { trace } from "./trace.ts";
export type { TracedNode, TraceStart } from "./trace.ts";
export { describeBlock, gpuStatus, lanesInUse, pendingInOrder } from "../scheduler/index.ts";
