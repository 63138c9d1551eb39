import type { JournalEvent } from "../store/index.ts";
import { EventStream } from "./event-stream.ts";
import { type QueueEvent, topicsOf } from "./events.ts";
import type { JobEntry } from "./job.ts";

/** Tells subscribers what has been committed, and what is never journaled. */
export class Publisher {
  readonly stream = new EventStream<QueueEvent>();
  #lastSeq: number | null = null;

  /** The last row that was told; null before the first. */
  get lastSeq(): number | null {
    return this.#lastSeq;
  }

  committed(events: readonly JournalEvent[]): void {
    const last = events.at(-1);
    if (last === undefined) return;
    this.#lastSeq = Math.max(this.#lastSeq ?? 0, last.seq);
    if (!this.stream.hasReaders) return;
    for (const event of events) this.#publish(toQueueEvent(event));
  }

  liveness(entry: JobEntry, type: string, payload: Readonly<Record<string, unknown>>): void {
    if (!this.stream.hasReaders) return;
    const { spec } = entry;
    this.#publish({
      seq: null,
      type,
      ts: new Date().toISOString(),
      jobId: spec.id,
      instanceId: spec.instanceId,
      compositionId: spec.compositionId,
      nodeId: spec.nodeId,
      runId: spec.runId,
      actor: spec.actor,
      payload,
    });
  }

  end(): void {
    this.stream.end();
  }

  #publish(event: QueueEvent): void {
    this.stream.publish(topicsOf(event), event);
  }
}

export function toQueueEvent(event: JournalEvent): QueueEvent {
  return {
    seq: event.seq,
    type: event.eventType,
    ts: event.ts,
    jobId: event.jobId,
    instanceId: event.capabilityInstanceId,
    compositionId: event.compositionId,
    nodeId: event.nodeId,
    runId: event.runId,
    actor: event.actor,
    payload: event.payload,
  };
}
