export { describeBlock } from "./block-reason.ts";
export type { BlockReason } from "./block-reason.ts";
export { canonicalKey, cloneState } from "./clone.ts";
export {
  borrowPeak,
  foldSample,
  inputBucket,
  isMeasured,
  machineGpuModel,
  p95Of,
  parseProfileKey,
  profileKey,
} from "./profile.ts";
export type {
  BorrowedPeak,
  Distribution,
  ProfileKeyParts,
  ResourceProfile,
  ResourceSample,
} from "./profile.ts";
export { addToQuantile, emptyQuantile, quantileOf } from "./quantile.ts";
export type { Quantile } from "./quantile.ts";
export { blockReasonOf, gpuStatus, lanesInUse, pendingInOrder, placeForLoad } from "./queries.ts";
export type { GpuInstanceStatus, GpuStatus, PendingStatus } from "./queries.ts";
export { decideRetry } from "./retry.ts";
export type { RetryDecision, RetryInput } from "./retry.ts";
export { createScheduler } from "./state.ts";
export type { SchedulerState } from "./state.ts";
export { step } from "./step.ts";
export { DEFAULT_RULES } from "./types.ts";
export type {
  AdmissionMode,
  AdmitDecision,
  Decision,
  EvictionLevel,
  GpuSample,
  InstanceSample,
  InstanceState,
  JobOutcome,
  JobRequest,
  SchedulerConfig,
  SchedulerEvent,
  SchedulerRules,
} from "./types.ts";
