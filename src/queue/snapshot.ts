import type { JobStatus } from "../store/index.ts";
import type { JobEntry } from "./job.ts";

/** What the terminal journal row says of a job: never its inputs or its result. */
export function terminalSnapshot(
  entry: JobEntry,
  status: JobStatus,
  completedAt: string,
): Readonly<Record<string, unknown>> {
  const { spec } = entry;
  return {
    id: spec.id,
    capability_instance_id: spec.instanceId,
    status,
    priority: entry.priority,
    submitted_at: spec.submittedAt,
    started_at: entry.startedAt,
    completed_at: completedAt,
    retry_count: entry.retryCount,
    composition_id: spec.compositionId,
    node_id: spec.nodeId,
    ...(spec.itemIndex !== null && { item_index: spec.itemIndex }),
    task_name: spec.target.task ?? null,
    method: spec.target.method ?? null,
    run_id: spec.runId,
    actor: spec.actor,
    load_ms: entry.attemptNow?.loadMs ?? null,
    progress: entry.progress,
    status_message: entry.statusMessage,
    error: entry.error,
  };
}
