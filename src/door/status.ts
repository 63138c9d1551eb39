import type { JobView } from "../queue/index.ts";
import { describeBlock, gpuStatus, lanesInUse, pendingInOrder } from "../queue/index.ts";
import type { DoorParts } from "./server.ts";
import type { HostStatus, JobLine } from "./wire.ts";

/** Pending jobs listed one by one; the rest is a number. */
const PENDING_SHOWN = 100;

/** What a live host does now. */
export function hostStatus(parts: DoorParts): HostStatus {
  const { queue, manager, store, resources } = parts;
  const measured = resources.snapshot();
  const usage = new Map(measured.instances.map((one) => [one.instanceId, one]));
  const state = queue.schedulerState;
  const pending = pendingInOrder(state);
  return {
    pid: process.pid,
    version: parts.version,
    data_dir: parts.dataDir,
    journal_available: store.available,
    lanes: { in_use: lanesInUse(state), limit: state.config.maxLanes },
    jobs: { ...queue.getStats() },
    running: queue.getRunning().map(jobLine),
    pending: pending.slice(0, PENDING_SHOWN).flatMap(({ jobId, reason }) => {
      const job = queue.peek(jobId);
      if (job === undefined) return [];
      const why = reason === null ? job.blockReason : describeBlock(reason);
      return [{ ...jobLine(job), block_reason: why }];
    }),
    pending_total: pending.length,
    compositions: queue.getCompositions().map(({ id, name, status }) => ({ id, name, status })),
    instances: [...manager.instances.values()].map((instance) => ({
      id: instance.spec.instanceId,
      capability: instance.spec.definition.name,
      state: instance.state,
      pid: instance.pid,
      ram_mb: usage.get(instance.spec.instanceId)?.ramMb ?? null,
      vram_mb: usage.get(instance.spec.instanceId)?.vramMb ?? null,
    })),
    gpus: gpuStatus(state).map((gpu) => ({
      uuid: gpu.uuid,
      total_mb: gpu.totalMb,
      free_mb: gpu.freeMb,
      reserved_mb: gpu.reservedMb,
      resident_mb: gpu.instances
        .filter(({ use }) => use === "idle" || use === "asleep")
        .reduce((sum, { observedMb }) => sum + observedMb, 0),
    })),
    ram_free_mb: measured.ramFreeMb,
    disk_free_mb: measured.diskFreeMb,
  };
}

function jobLine(job: JobView): JobLine {
  return {
    id: job.id,
    instance: job.instanceId,
    composition_id: job.compositionId,
    node_id: job.nodeId,
    status: job.status,
    priority: job.priority,
    attempt: job.attempt,
    submitted_at: job.submittedAt,
    started_at: job.startedAt,
    progress: job.progress,
    status_message: job.statusMessage,
    block_reason: job.blockReason,
  };
}
