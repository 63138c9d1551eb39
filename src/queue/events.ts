/** Types the queue announces about jobs and compositions. */
export const JOB_EVENT_TYPES = [
  "state_transition",
  "progress_changed",
  "composition_advanced",
  "resource_snapshot",
  "block_reason_changed",
  "cancel_phase_changed",
  "retry_started",
] as const;

/** Something that happened. `seq` is its journal row; null for liveness events. */
export interface QueueEvent {
  readonly seq: number | null;
  readonly type: string;
  readonly ts: string;
  readonly jobId: string | null;
  readonly instanceId: string | null;
  readonly compositionId: string | null;
  readonly nodeId: string | null;
  readonly runId: string | null;
  readonly actor: string | null;
  readonly payload: Readonly<Record<string, unknown>>;
}

export const ALL_TOPIC = "all";
export const jobTopic = (jobId: string): string => `job:${jobId}`;
export const compositionTopic = (compositionId: string): string => `comp:${compositionId}`;

export function topicsOf(event: QueueEvent): string[] {
  return [
    ALL_TOPIC,
    ...(event.jobId === null ? [] : [jobTopic(event.jobId)]),
    ...(event.compositionId === null ? [] : [compositionTopic(event.compositionId)]),
  ];
}

/** True for the last event of the job or composition that `filter` is about. */
export function isTerminalEvent(
  event: QueueEvent,
  filter: {
    readonly jobId?: string | undefined;
    readonly compositionId?: string | undefined;
  } | null,
): boolean {
  if (event.type !== "state_transition") return false;
  const isOver = ["completed", "failed", "cancelled"].includes(String(event.payload["to"]));
  if (filter?.jobId !== undefined) return isOver;
  return filter?.compositionId !== undefined && isOver && event.jobId === null;
}
