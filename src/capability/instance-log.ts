import { toError } from "../errors/index.ts";
import type { ActiveFrame, WorkerSink } from "../process/index.ts";
import type { JournalEntry } from "../store/index.ts";
import type { ActiveCalls } from "./active-calls.ts";
import type { InstanceSpec } from "./instance-spec.ts";
import { redactRecord } from "./redaction.ts";
import type { InstanceServices } from "./services.ts";

/** Where what an instance's workers say goes: the diagnostics, the journal, the running calls. */
export class InstanceLog {
  /** Called for progress that belongs to no call: that of a hook. */
  onHookProgress: (() => void) | undefined;
  readonly #spec: () => InstanceSpec;
  readonly #services: InstanceServices;
  readonly #calls: ActiveCalls;

  constructor(spec: () => InstanceSpec, services: InstanceServices, calls: ActiveCalls) {
    this.#spec = spec;
    this.#services = services;
    this.#calls = calls;
  }

  /** A warning of the host about this instance. */
  note(message: string, sessionId: string | null = null): void {
    this.#services.diagnostics.appendRecord({
      message: `${this.#spec().instanceId}: ${message}`,
      level: "warning",
      loggerName: "cjm.host",
      ts: new Date().toISOString(),
      workerSessionId: sessionId,
      jobId: null,
      excText: null,
    });
  }

  sink(sessionId: string): WorkerSink {
    return {
      frame: (frame) => {
        this.#frame(frame, sessionId);
      },
      logs: (lines) => {
        const frames = { lines, workerSessionId: sessionId, source: this.#spec().instanceId };
        this.#services.diagnostics.appendFrames(frames);
      },
      output: (stream, lines) => {
        const output = { lines, stream, workerSessionId: sessionId };
        this.#services.diagnostics.appendOutput(output);
      },
      note: (message) => {
        this.note(message, sessionId);
      },
    };
  }

  /** Resolves when the row is committed. */
  async journal(
    sessionId: string | null,
    rows: readonly (readonly [eventType: string, payload: Readonly<Record<string, unknown>>])[],
  ): Promise<void> {
    await this.#services.journal(
      rows.map(([eventType, payload]) => this.entry(eventType, sessionId, payload)),
    );
  }

  /** As {@link InstanceLog.journal}; a journal that cannot be written is noted, not thrown. */
  async journalDeath(sessionId: string, payload: Readonly<Record<string, unknown>>): Promise<void> {
    try {
      await this.journal(sessionId, [["worker_died", payload]]);
    } catch (error) {
      this.note(`worker_died could not be journaled: ${toError(error).message}`);
    }
  }

  entry(
    eventType: string,
    workerSessionId: string | null,
    payload: Readonly<Record<string, unknown>>,
  ): JournalEntry {
    const spec = this.#spec();
    return {
      eventType,
      capabilityInstanceId: spec.instanceId,
      capabilityName: spec.definition.name,
      configHash: spec.configHash,
      workerSessionId,
      payload: redactRecord(payload, this.#services.redact),
    };
  }

  #frame(frame: ActiveFrame, sessionId: string): void {
    if (frame.type === "warning") {
      this.note(frame.message, sessionId);
    } else if (frame.type === "dropped") {
      this.note(`${frame.n} log records were dropped by the worker`, sessionId);
    } else if (frame.type === "progress" && frame.job_id == null) {
      this.onHookProgress?.();
    } else {
      this.#calls.route(frame);
    }
  }
}
