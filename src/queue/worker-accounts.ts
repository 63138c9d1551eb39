import { JOB_EVENT_TYPES } from "./events.ts";

/** Rows one attempt may add to the journal, which keeps them for ever. */
export const ACCOUNTS_PER_ATTEMPT = 1_000;

/** What only the host may say: a worker that could would end jobs in the eyes of every reader. */
const HOST_WORDS: ReadonlySet<string> = new Set([
  ...JOB_EVENT_TYPES,
  "adapter_bound",
  "admission_decided",
  "composition_submitted",
  "config_applied",
  "eviction_confirmed",
  "eviction_refuted",
  "eviction_requested",
  "install_finished",
  "job_submitted",
  "orphan_ended",
  "run_finished",
  "run_started",
  "secret_changed",
  "worker_died",
  "worker_ready",
  "worker_spawned",
]);

type Account = (eventType: string, payload: Readonly<Record<string, unknown>>) => void;

/**
 * Puts a bound to what an attempt's worker adds to the journal. An event type that is the host's
 * becomes `worker_account` with the type in its payload; past the limit one last row says so.
 */
export function boundedAccounts(write: Account): Account {
  let count = 0;
  return (eventType, payload) => {
    count += 1;
    if (count > ACCOUNTS_PER_ATTEMPT) {
      if (count === ACCOUNTS_PER_ATTEMPT + 1) {
        write("worker_account", { limit: ACCOUNTS_PER_ATTEMPT, note: "further rows are dropped" });
      }
      return;
    }
    if (HOST_WORDS.has(eventType)) write("worker_account", { event_type: eventType, ...payload });
    else write(eventType, payload);
  };
}
