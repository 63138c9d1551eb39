import { statfsSync } from "node:fs";
import { freemem } from "node:os";
import { join } from "node:path";
import {
  CapabilityExecutor,
  CapabilityManager,
  type InstanceServices,
  type LoadRequest,
  resolveWorkerEnv,
} from "./capability/index.ts";
import { type Bindings, createBindings } from "./bindings.ts";
import {
  type DiscoveredManifest,
  hostPackage,
  loadConfig,
  manifestSearchPaths,
  type ResolvedConfig,
} from "./config/index.ts";
import { openDoor } from "./door/server.ts";
import {
  endSessionProcesses,
  prepareRunFolder,
  probeCage,
  runFolderPath,
  SessionNames,
} from "./process/index.ts";
import { JobQueue, ProfileBook, type ResourceProbe } from "./queue/index.ts";
import {
  acquireHostLock,
  createRedactor,
  DiagnosticsStore,
  type JournalEntry,
  openJournalDatabase,
  ResultFiles,
  SecretStore,
  type StorePort,
} from "./store/index.ts";

/** A capability to load: its name, name and config, or everything about the instance. */
export type CapabilityRequest =
  | string
  | readonly [name: string, config: Readonly<Record<string, unknown>>]
  | ({ readonly name: string } & Omit<LoadRequest, "capability">);

export interface PipelineOptions {
  /** Loaded in parallel before `createPipeline` resolves. @default none */
  readonly capabilities?: readonly CapabilityRequest[];
  /** Capability that measures GPUs; admission uses its numbers. @default none: GPU jobs run alone */
  readonly systemMonitor?: string;
  /** Folders with manifests, searched after the installed ones. */
  readonly searchPaths?: readonly string[];
  /** Overrides of `queue` in cjm.yaml. */
  readonly queue?: Partial<ResolvedConfig["queue"]>;
  /** Unknown config keys are an error. @default true */
  readonly strict?: boolean;
  /** @default `data_dir` of cjm.yaml */
  readonly dataDir?: string;
  /** Where cjm.yaml is searched, upwards. @default the working directory */
  readonly cwd?: string;
  /** A resolved configuration instead of reading cjm.yaml. */
  readonly config?: ResolvedConfig;
}

/** What a pipeline records and can be asked about. */
export interface PipelineJournal {
  readonly query: StorePort["queryJournal"];
  readonly count: StorePort["countJournal"];
  /** Adds an event of the host tier, such as `run_started`. Resolves after the commit. */
  append(entry: JournalEntry): Promise<void>;
}

/** A running host. Dispose it to stop the queue and end every worker. */
export interface Pipeline extends AsyncDisposable {
  readonly config: ResolvedConfig;
  readonly manager: CapabilityManager;
  readonly queue: JobQueue;
  readonly bindings: Bindings;
  readonly journal: PipelineJournal;
  readonly diagnostics: DiagnosticsStore;
  /** Ends the queue with a limit for what still runs, then every worker. */
  stop(options?: { readonly drainMs?: number }): Promise<void>;
}

const STOP_DRAIN_MS = 5_000;
const CLEANUP_TIMEOUT_MS = 2_000;

/**
 * The composition root: builds everything, starts the queue, loads the capabilities.
 *
 * Own the result with `await using`.
 *
 * @throws {CjmError} `DATA_DIR_LOCKED` if another host has the data directory.
 * @throws {AggregateError} with every cause if capabilities cannot be loaded; nothing is left running.
 */
export async function createPipeline(options: PipelineOptions = {}): Promise<Pipeline> {
  await using stack = new AsyncDisposableStack();
  const config = await resolveConfig(options);
  const { dataDir } = config;
  const lock = stack.use(await acquireHostLock(dataDir, { pid: process.pid, door: null }));
  const runFolder = runFolderPath(dataDir);
  await prepareRunFolder(runFolder);
  const sessions = new SessionNames(dataDir);
  const leftovers = await endSessionProcesses((id) => sessions.isLeftover(id));

  const secrets = new SecretStore(dataDir);
  const diagnostics = stack.use(
    await DiagnosticsStore.open(join(dataDir, "diagnostics.db"), {
      redact: createRedactor(await secrets.values()),
    }),
  );
  const store = stack.use(await openJournalDatabase(join(dataDir, "journal.db")));
  await journalAll(
    store,
    leftovers.map(({ pid }) => ({ eventType: "orphan_ended", payload: { pid } })),
  );
  const { cage } = config.substrate.cage === "group" ? { cage: "group" as const } : await probeCage();
  const services = instanceServices({ config, runFolder, cage, sessions, diagnostics, store, secrets });
  const manager = stack.use(
    await CapabilityManager.open({
      searchPaths: manifestSearchPaths(config, options.searchPaths),
      services,
      store,
    }),
  );
  const telemetry = stack.use(openTelemetry(manager, config));
  const executor = new CapabilityExecutor(manager, telemetry.meter, {
    work: join(dataDir, "work"),
    files: join(dataDir, "files"),
  });
  const queue = new JobQueue({
    store,
    results: new ResultFiles(dataDir),
    executor,
    probe: telemetry.probe,
    profiles: new ProfileBook(await store.listProfiles()),
    scheduler: schedulerConfig(config),
    cancelTimeoutMs: config.queue.cancelTimeoutSeconds * 1_000,
    history: config.queue.history,
    maxRetries: config.queue.maxRetries,
  });
  queue.start();
  stack.defer(async () => {
    await queue.stop(STOP_DRAIN_MS);
  });
  const door = stack.use(await openDoor(join(runFolder, "host.sock"), { queue, manager, store }));
  await lock.announce({ pid: process.pid, door: door.path });
  await loadAll(manager, options);
  if (options.systemMonitor !== undefined) await telemetry.follow(options.systemMonitor);

  const owned = stack.move();
  return {
    config,
    manager,
    queue,
    bindings: createBindings(manager, queue),
    diagnostics,
    journal: {
      query: (filter) => store.queryJournal(filter),
      count: (eventType) => store.countJournal(eventType),
      append: (entry) => journalAll(store, [entry]),
    },
    stop: async ({ drainMs = STOP_DRAIN_MS } = {}) => {
      await queue.stop(drainMs);
      await owned.disposeAsync();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
