import { expect, test } from "vitest";
import { decideRetry, type RetryInput } from "../../../src/scheduler/index.ts";

const failure = (more: Partial<RetryInput>): RetryInput => ({
  category: "transient",
  code: "CAPABILITY_TRANSIENT",
  attempt: 1,
  maxRetries: 1,
  workerKilled: false,
  random: 0.5,
  ...more,
});

test("a resource error restarts the worker, evicts, and retries at once", () => {
  const error = failure({ category: "resource", code: "WORKER_OOM" });
  const expected = { retry: true, delayMs: 0, restartWorker: true, evict: true };
  expect(decideRetry(error)).toEqual(expected);
  expect(decideRetry(failure({ code: "WORKER_EXITED", workerKilled: true }))).toEqual(expected);
});

test("no error is retried more often than allowed", () => {
  expect(decideRetry(failure({ attempt: 2 }))).toEqual({ retry: false });
  expect(decideRetry(failure({ category: "resource", attempt: 1, maxRetries: 0 }))).toEqual({
    retry: false,
  });
});

test.for([
  failure({ category: "user_input", code: "CAPABILITY_INPUT" }),
  failure({ category: "user_input", code: "CAPABILITY_INPUT", workerKilled: true }),
  failure({ category: "fatal", code: "CAPABILITY_ERROR" }),
  failure({ code: "CAPABILITY_CANCELLED" }),
  failure({ category: "resource", code: "VRAM_NEVER_FITS" }),
])("$category $code is never retried", (error) => {
  expect(decideRetry(error)).toEqual({ retry: false });
});

test("a transient error waits longer each time, with jitter, up to half a minute", () => {
  const delay = (attempt: number, random: number): number => {
    const decision = decideRetry(failure({ attempt, maxRetries: 99, random }));
    return decision.retry ? decision.delayMs : -1;
  };
  expect([1, 2, 3].map((attempt) => delay(attempt, 0))).toEqual([250, 500, 1000]);
  expect([1, 2, 3].map((attempt) => delay(attempt, 0.999))).toEqual([500, 1000, 1999]);
  expect(delay(50, 0.999)).toBeLessThanOrEqual(30_000);
});

test("the wait that the tool asked for is honoured, within an hour", () => {
  expect(decideRetry(failure({ retryAfterSeconds: 60 }))).toMatchObject({ delayMs: 60_000 });
  expect(decideRetry(failure({ retryAfterSeconds: 1e9 }))).toMatchObject({ delayMs: 3_600_000 });
});
