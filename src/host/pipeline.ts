import { join } from "node:path";
import { CapabilityExecutor, CapabilityManager, type LoadRequest } from "../capability/index.ts";
import { type Bindings, createBindings } from "./bindings.ts";
import {
  hostPackage,
  loadConfig,
  manifestSearchPaths,
  type ResolvedConfig,
} from "../config/index.ts";
import { openDoor } from "../door/index.ts";
import {
  endSessionProcesses,
  HOST_SOCKET,
  prepareRunFolder,
  probeCage,
  removeRunFolder,
  runFolderPath,
  SessionNames,
  sweepRunFolders,
} from "../process/index.ts";
import { toError } from "../errors/index.ts";
import { JobQueue, ProfileBook } from "../queue/index.ts";
import type { SchedulerConfig } from "../scheduler/index.ts";
import {
  acquireHostLock,
  DiagnosticsStore,
  type JournalEntry,
  type JournalEvent,
  openJournalDatabase,
  removeBodies,
  ResultFiles,
  SecretStore,
  type StorePort,
} from "../store/index.ts";
import { compact } from "../util/compact.ts";
import { instanceServices } from "./instance-services.ts";
import { MeasuredResources } from "./measured-resources.ts";
import { recordSamples } from "./resource-samples.ts";
import { SecretRedactor } from "./secret-redactor.ts";

/** A capability to load: its name, name and config, or everything about the instance. */
export type CapabilityRequest =
  | string
  | readonly [name: string, config: Readonly<Record<string, unknown>>]
  | ({ readonly name: string } & Omit<LoadRequest, "capability">);

export interface PipelineOptions {
  /** Loaded, four at once, before `createPipeline` resolves. @default none */
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
  const lock = stack.use(await acquireHostLock(config.dataDir, { pid: process.pid, door: null }));
  const stores = await openStores(config, stack);
  const { store, diagnostics } = stores;
  // Rows of the workers' life are announced by the queue, which needs the manager to be made.
  const announcer: Announcer = { announce: () => undefined };
  const manager = await openManager(config, { ...stores, ...options, announcer }, stack);
  const resources = stack.use(
    new MeasuredResources(manager, { dataDir: config.dataDir, monitor: options.systemMonitor }),
  );
  const queue = await startQueue(config, { store, diagnostics, manager, resources }, stack);
  announcer.announce = (events) => {
    queue.announce(events);
  };
  const socket = join(runFolderPath(config.dataDir), HOST_SOCKET);
  const door = stack.use(
    await openDoor(socket, {
      queue,
      manager,
      store,
      resources,
      dataDir: config.dataDir,
      version: hostPackage().version,
      measurements: () => resources.measurements(),
      retain: (keep) => diagnostics.applyRetention(keep),
      removeBodies: (keep) => removeBodies(config.dataDir, store, keep),
    }),
  );
  await lock.announce({ pid: process.pid, door: door.path });
  await loadAll(manager, options);
  await resources.start();
  const isBusy = (): boolean => queue.getStats().running > 0;
  stack.use(recordSamples({ resources, diagnostics, isBusy }));

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
      append: async (entry) => {
        announcer.announce(await journalAll(store, [entry]));
      },
    },
    stop: async ({ drainMs = STOP_DRAIN_MS } = {}) => {
      await queue.stop(drainMs);
      await owned.disposeAsync();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

interface Stores {
  readonly secrets: SecretStore;
  readonly redactor: SecretRedactor;
  readonly diagnostics: DiagnosticsStore;
  readonly store: StorePort;
}

async function openStores(config: ResolvedConfig, stack: AsyncDisposableStack): Promise<Stores> {
  const { dataDir, substrate } = config;
  const secrets = new SecretStore(dataDir);
  const known = await secrets.values();
  const { diagnosticsRetentionDays: days, diagnosticsRetentionMaxMb: maxTotalMb } = substrate;
  const redactor = new SecretRedactor(known);
  const diagnostics = stack.use(
    await DiagnosticsStore.open(join(dataDir, "diagnostics.db"), { secrets: known, maxTotalMb }),
  );
  // In the background: nobody waits for old logs to go. No days means for ever, not for no time.
  void diagnostics
    .applyRetention(compact({ maxAgeDays: days > 0 ? days : undefined, maxTotalMb }))
    .catch(() => undefined);
  const store = stack.use(await openJournalDatabase(join(dataDir, "journal.db")));
  return { secrets, redactor, diagnostics, store };
}

/** Ends what an earlier host left, then makes the manager of this one's workers. */
async function openManager(
  config: ResolvedConfig,
  parts: Stores & Pick<PipelineOptions, "searchPaths"> & { readonly announcer: Announcer },
  stack: AsyncDisposableStack,
): Promise<CapabilityManager> {
  const { dataDir, substrate } = config;
  const runFolder = runFolderPath(dataDir);
  await prepareRunFolder(runFolder);
  await sweepRunFolders(runFolder);
  // Before the lock is given back: the next host may be waiting for it.
  stack.defer(() => removeRunFolder(runFolder));
  const sessions = new SessionNames(dataDir);
  const leftovers = await endSessionProcesses((id) => sessions.isLeftover(id));
  await journalAll(
    parts.store,
    leftovers.map(({ pid }) => ({ eventType: "orphan_ended", payload: { pid } })),
  );
  const cage = substrate.cage === "group" ? "group" : (await probeCage()).cage;
  return stack.use(
    await CapabilityManager.open({
      searchPaths: manifestSearchPaths(config, parts.searchPaths),
      services: instanceServices({ ...parts, config, runFolder, cage, sessions }),
      store: parts.store,
    }),
  );
}

async function startQueue(
  config: ResolvedConfig,
  parts: {
    readonly store: StorePort;
    readonly diagnostics: DiagnosticsStore;
    readonly manager: CapabilityManager;
    readonly resources: MeasuredResources;
  },
  stack: AsyncDisposableStack,
): Promise<JobQueue> {
  const { dataDir } = config;
  const { store, diagnostics, manager, resources } = parts;
  const queue = new JobQueue({
    store,
    diagnostics,
    results: new ResultFiles(dataDir),
    executor: new CapabilityExecutor(manager, resources, {
      work: join(dataDir, "work"),
      files: join(dataDir, "files"),
    }),
    probe: resources,
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
  return queue;
}

async function resolveConfig(options: PipelineOptions): Promise<ResolvedConfig> {
  const cwd = options.cwd ?? process.cwd();
  const loaded =
    options.config ??
    (await loadConfig({
      cwd,
      env: process.env,
      flags: compact({ data_dir: options.dataDir }),
    }));
  return { ...loaded, queue: { ...loaded.queue, ...options.queue } };
}

function schedulerConfig({ queue, substrate }: ResolvedConfig): SchedulerConfig {
  return compact({
    maxLanes: queue.maxConcurrentLanes,
    vramMarginMb: queue.vramMarginMb,
    admission: queue.admission,
    minFreeDiskMb: queue.minFreeDiskMb,
    empiricalTracking: substrate.empiricalTracking,
  });
}

/** Tells subscribers of rows that were written beside the queue. */
interface Announcer {
  announce: (events: readonly JournalEvent[]) => void;
}

async function journalAll(
  store: StorePort,
  entries: readonly JournalEntry[],
): Promise<readonly JournalEvent[]> {
  if (entries.length === 0) return [];
  const { events } = await store.stage(entries.map((event) => ({ op: "journal.append", event })));
  return events;
}

async function loadAll(
  manager: CapabilityManager,
  { capabilities = [], systemMonitor, strict }: PipelineOptions,
): Promise<void> {
  const requests = capabilities.map((request) => ({ strict, ...toLoadRequest(request) }));
  if (systemMonitor !== undefined && !requests.some((one) => one.capability === systemMonitor)) {
    requests.push({ strict, capability: systemMonitor });
  }
  const loads = await manager.loadAll(requests, { failFast: false });
  const causes = loads.flatMap(({ error }) => (error === undefined ? [] : [error]));
  if (causes.length === 0) return;
  const list = causes.map((cause) => toError(cause).message);
  throw new AggregateError(causes, `Capabilities could not be loaded: ${list.join("; ")}`);
}

function toLoadRequest(request: CapabilityRequest): LoadRequest {
  if (typeof request === "string") return { capability: request };
  if (isPair(request)) return { capability: request[0], config: request[1] };
  const { name, ...rest } = request;
  return { capability: name, ...rest };
}

function isPair(
  request: Exclude<CapabilityRequest, string>,
): request is readonly [string, Readonly<Record<string, unknown>>] {
  return Array.isArray(request);
}
