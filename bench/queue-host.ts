import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JobQueue, ProfileBook } from "../src/queue/index.ts";
import { openJournalDatabase, ResultFiles, type StorePort } from "../src/store/index.ts";
import { AMPLE, NoOpExecutor } from "./no-op-executor.ts";

/** A queue whose workers answer at once. */
export interface QueueHost extends AsyncDisposable {
  readonly queue: JobQueue;
  readonly executor: NoOpExecutor;
}

export const LANES = 16;

export async function openQueueHost(
  wrap: (store: StorePort) => StorePort = (store) => store,
): Promise<QueueHost> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-bench-"));
  const database = await openJournalDatabase(join(folder, "journal.db"));
  const executor = new NoOpExecutor(LANES);
  const queue = new JobQueue({
    store: wrap(database),
    results: new ResultFiles(folder),
    executor,
    probe: AMPLE,
    profiles: new ProfileBook([]),
    scheduler: { maxLanes: LANES },
    cancelTimeoutMs: 3_000,
    history: 1_000,
    maxRetries: 1,
  });
  queue.start();
  // A first run alone is the measurement of all that follow.
  await (await queue.submit("noop")).result();
  return {
    queue,
    executor,
    async [Symbol.asyncDispose]() {
      await queue.stop(1_000);
      await database[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
