import assert from "node:assert/strict";
import { z } from "zod";
import { jobErrorBodySchema, type WorkerFrame } from "../../src/protocol/index.ts";
import type { Reply, StartOptions, WorkerUnderTest } from "./worker-under-test.ts";

/** Starts a worker of its own for a case; the suite ends it. */
export type Starter = (options?: StartOptions) => Promise<WorkerUnderTest>;

interface CaseCommon {
  readonly title: string;
  /** Needs the actions of the fixture capability `conformance`; skipped for any other. */
  readonly fixture?: boolean;
}

/** Something every worker must do: on the worker all such cases share, or on new ones. */
export type Case = CaseCommon &
  (
    | { readonly run: (worker: WorkerUnderTest) => Promise<void>; readonly fresh?: never }
    | { readonly fresh: (start: Starter) => Promise<void>; readonly run?: never }
  );

export type Failure = z.output<typeof jobErrorBodySchema>["_job_error"];

/** The typed error of an answer that must be a failure with this code. */
export function failureOf(reply: Reply, code: string): Failure {
  const { _job_error: error } = jobErrorBodySchema.parse(reply.json);
  assert.equal(error.code, code, `${reply.status} ${error.code}: ${error.message}`);
  assert.notEqual(reply.status, 200);
  return error;
}

/** The body of an answer that must be a success. */
export function valueOf(reply: Reply): unknown {
  assert.equal(reply.status, 200, reply.text.slice(0, 500));
  return reply.json;
}

/** A member of an answer that must be a successful object. */
export function memberOf(reply: Reply, key: string): unknown {
  return z.record(z.string(), z.unknown()).parse(valueOf(reply))[key];
}

/** Fits the log frame of one message. */
export function logged(message: string): (frame: WorkerFrame) => frame is LogFrame {
  return (frame): frame is LogFrame => frame.type === "log" && frame.message === message;
}
export type LogFrame = Extract<WorkerFrame, { type: "log" }>;

let jobs = 0;
/** A job id no other case uses. */
export function newJob(): string {
  jobs += 1;
  return `job-${jobs}`;
}
