import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  JobQueue,
  ProfileBook,
  type QueueEvent,
  type QueueOptions,
} from "../../src/queue/index.ts";
import {
  type JournalDatabase,
  type JournalEvent,
  openJournalDatabase,
  ResultFiles,
  type StorePort,
} from "../../src/store/index.ts";
import { FakeExecutor, FakeProbe } from "./fake-executor.ts";

export interface QueueHostOptions extends Partial<
  Omit<QueueOptions, "store" | "results" | "executor" | "probe" | "profiles">
> {
  readonly executor?: FakeExecutor;
  readonly probe?: FakeProbe;
  /** A data folder of an earlier host; it is kept. @default a new one, removed at the end */
  readonly dataDir?: string;
  /** Puts something between the queue and the store. */
  readonly wrap?: (store: JournalDatabase) => StorePort;
}

/** A queue over the real store in a folder of its own, with a fake executor and probe. */
export interface QueueHost extends AsyncDisposable {
  readonly queue: JobQueue;
  readonly executor: FakeExecutor;
  readonly probe: FakeProbe;
  readonly store: StorePort;
  readonly dataDir: string;
  /** Journal rows of one job or composition as `type` or `type to`. */
  journal(filter?: { jobId?: string; compositionId?: string }): Promise<readonly JournalEvent[]>;
}

/** A folder of its own; in memory where the system has such a place, since SIGKILL tests no fsync. */
export async function newDataDir(): Promise<string> {
  const memory = "/dev/shm";
  return await mkdtemp(join(existsSync(memory) ? memory : tmpdir(), "cjm-queue-"));
}

export async function openQueue(options: QueueHostOptions = {}): Promise<QueueHost> {
  const {
    executor = new FakeExecutor(),
    probe = new FakeProbe(),
    wrap,
    dataDir,
    ...rest
  } = options;
  const folder = dataDir ?? (await newDataDir());
  const database = await openJournalDatabase(join(folder, "journal.db"));
  const store = wrap?.(database) ?? database;
  const queue = new JobQueue({
    store,
    results: new ResultFiles(folder),
    executor,
    probe,
    profiles: new ProfileBook(await store.listProfiles()),
    scheduler: { maxLanes: 4 },
    cancelTimeoutMs: 3_000,
    history: 1_000,
    maxRetries: 1,
    ...rest,
  });
  queue.start();
  return {
    queue,
    executor,
    probe,
    store,
    dataDir: folder,
    journal: (filter = {}) => store.queryJournal(filter),
    async [Symbol.asyncDispose]() {
      await queue.stop(0);
      await database[Symbol.asyncDispose]();
      if (dataDir === undefined) await rm(folder, { recursive: true, force: true });
    },
  };
}

/** `state_transition running→completed` and the like, for comparing whole stories. */
export function told(
  events: readonly { readonly eventType: string; readonly payload: object }[],
): string[] {
  return events.map(({ eventType, payload }) => {
    const { from, to } = payload as { from?: string | null; to?: string };
    return to === undefined ? eventType : `${eventType} ${from ?? null}→${to}`;
  });
}

/** Reads events until one satisfies `isLast`, which is the last one given back. */
export async function readUntil(
  events: AsyncIterable<QueueEvent>,
  isLast: (event: QueueEvent) => boolean,
): Promise<QueueEvent[]> {
  const seen: QueueEvent[] = [];
  for await (const event of events) {
    seen.push(event);
    if (isLast(event)) break;
  }
  return seen;
}

/** Lets everything that is staged commit and its effects run. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 6; turn += 1) {
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
  }
}
