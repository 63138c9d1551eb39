import type { ErrorCategory } from "../errors/index.ts";

export interface RetryInput {
  readonly category: ErrorCategory;
  readonly code: string;
  /** The attempt that failed, counted from 1. */
  readonly attempt: number;
  readonly maxRetries: number;
  /** The worker ended under the job, by a signal or by itself. */
  readonly workerKilled: boolean;
  readonly retryAfterSeconds?: number | null | undefined;
  /** Uniform in [0, 1): the jitter, given by the caller so that the decision stays pure. */
  readonly random: number;
}

export type RetryDecision =
  | { readonly retry: false }
  | {
      readonly retry: true;
      readonly delayMs: number;
      /** The process must not be used again. */
      readonly restartWorker: boolean;
      /** The GPU was too full: the raised lower bound makes the ladder clear it for the next attempt. */
      readonly evict: boolean;
    };

const BASE_DELAY_MS = 500;
const MAX_DELAY_MS = 30_000;
/** What a caller asks to wait is honoured, but not beyond an hour. */
const MAX_RETRY_AFTER_MS = 3_600_000;
const NO_RETRY: RetryDecision = { retry: false };

/**
 * Whether a failed attempt is repeated, and how. Decided by category and code, never by a message.
 *
 * Backoff with "equal jitter": half of an exponential delay is fixed and half is random (M. Brooker,
 * "Exponential Backoff and Jitter", AWS Architecture Blog, 2015); half stays fixed so that a worker
 * that has just died is never called again at once.
 */
export function decideRetry(input: RetryInput): RetryDecision {
  if (input.attempt > input.maxRetries) return NO_RETRY;
  if (input.code === "CAPABILITY_CANCELLED" || input.code === "VRAM_NEVER_FITS") return NO_RETRY;
  if (input.category === "user_input" || input.category === "fatal") return NO_RETRY;
  if (input.category === "resource" || input.workerKilled) {
    return { retry: true, delayMs: 0, restartWorker: true, evict: true };
  }
  return { retry: true, delayMs: transientDelayMs(input), restartWorker: false, evict: false };
}

function transientDelayMs({ attempt, retryAfterSeconds, random }: RetryInput): number {
  const ceiling = Math.min(MAX_DELAY_MS, BASE_DELAY_MS * 2 ** (attempt - 1));
  const backoffMs = ceiling / 2 + (ceiling / 2) * random;
  const askedMs = Math.min(MAX_RETRY_AFTER_MS, (retryAfterSeconds ?? 0) * 1000);
  return Math.round(Math.max(backoffMs, askedMs));
}
