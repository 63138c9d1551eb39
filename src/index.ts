export { CjmError } from "./errors/index.ts";
export type { ErrorCategory, ErrorCode, JobError, ResourceShortfall } from "./errors/index.ts";
export {
  composition,
  input,
  item,
  itemIndex,
  parseCompositionFile,
  ref,
} from "./composition/index.ts";
export type { Composition, NodeSpec, OutputRef } from "./composition/index.ts";
export { createPipeline } from "./host/pipeline.ts";
export type {
  CapabilityRequest,
  Pipeline,
  PipelineJournal,
  PipelineOptions,
} from "./host/pipeline.ts";
// By star: a named re-export could not be merged with what `cjm-ctl types` declares.
export type * from "./host/capability-bindings.ts";
export type { BoundAction, BoundCall, BoundTasks, Bindings } from "./host/bindings.ts";
export type {
  CompositionHandle,
  CompositionView,
  JobCounts,
  JobHandle,
  JobQueue,
  JobView,
  NodeView,
  QueueEvent,
  RunContext,
  SubmitOptions,
} from "./queue/index.ts";
export type { DirRef, FileRef } from "./protocol/index.ts";
