import type { DiscoveredAdapter, DiscoveredManifest, FileProblem } from "../config/index.ts";
import { CjmError, toError } from "../errors/index.ts";
import type { StorePort } from "../store/index.ts";
import { hashCanonical } from "../util/canonical-json.ts";
import { NAME_PATTERN, randomHex } from "../util/ids.ts";
import { selectAdapters } from "./adapters.ts";
import { ConfigBook, type EffectiveConfig } from "./config-book.ts";
import { CapabilityInstance } from "./instance.ts";
import type { InstanceSpec } from "./instance-spec.ts";
import { type Attempt, forEachLimited, type Many } from "./many.ts";
import { CapabilityRegistry } from "./registry.ts";
import type { InstanceServices } from "./services.ts";
import { StallLedger } from "./stall-watch.ts";

/** Which capability to load, as what, and how configured. */
export interface LoadRequest {
  readonly capability: string;
  /** @default the capability's name */
  readonly instanceId?: string | undefined;
  /** Makes an id `<capability>-<6 hex>`; such an instance's config is never persisted. */
  readonly newInstance?: boolean | undefined;
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  readonly maxConcurrentRequests?: number | undefined;
  /** Task adapters to bind, by name. @default every one of its environment that fits */
  readonly adapters?: readonly string[] | undefined;
  /** Unknown config keys are an error. @default true */
  readonly strict?: boolean | undefined;
}

/** Which secret changed, and how; never its value. */
export interface SecretChange {
  readonly capability: string;
  readonly key: string;
  readonly change: "set" | "delete";
  readonly scope?: string | undefined;
}

/** What became of the workers that had the secret. */
export interface SecretEffect {
  /** Instances whose worker was replaced. */
  readonly reloaded: readonly string[];
  /** Instances whose new worker did not come up, for one because the secret is required. */
  readonly failed: readonly { readonly id: string; readonly message: string }[];
}

export interface ManagerOptions {
  readonly searchPaths: readonly string[];
  readonly services: InstanceServices;
  readonly store: StorePort;
}

/**
 * The capabilities this host knows and the instances it has loaded.
 *
 * Disposing it ends every worker.
 */
export class CapabilityManager implements AsyncDisposable {
  readonly registry: CapabilityRegistry;
  readonly #services: InstanceServices;
  readonly #configs: ConfigBook;
  readonly #stalls = new StallLedger();
  readonly #instances = new Map<string, CapabilityInstance>();
  readonly #requests = new Map<string, LoadRequest>();
  readonly #listeners = new Set<(instance: CapabilityInstance) => void>();

  private constructor(options: ManagerOptions, configs: ConfigBook) {
    this.registry = new CapabilityRegistry(options.searchPaths);
    this.#services = options.services;
    this.#configs = configs;
  }

  static async open(options: ManagerOptions): Promise<CapabilityManager> {
    const manager = new CapabilityManager(options, await ConfigBook.open(options.store));
    await manager.registry.discover();
    return manager;
  }

  get definitions(): ReadonlyMap<string, DiscoveredManifest> {
    return this.registry.definitions;
  }

  get adapters(): ReadonlyMap<string, DiscoveredAdapter> {
    return this.registry.adapters;
  }

  /** Manifests that could not be read. */
  get problems(): readonly FileProblem[] {
    return this.registry.problems;
  }

  get instances(): ReadonlyMap<string, CapabilityInstance> {
    return this.#instances;
  }

  /**
   * The instance with this id; one that was never declared is the capability of that name with its
   * persisted or default config. Starts nothing.
   */
  instance(instanceId: string): CapabilityInstance {
    return this.#instances.get(instanceId) ?? this.declare({ capability: instanceId });
  }

  /** Calls `listener` after every change of an instance's state. Returns the unsubscribe. */
  onInstanceChange(listener: (instance: CapabilityInstance) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Takes every secret that workers were given out of a text. */
  get redact(): (text: string) => string {
    return this.#services.redact;
  }

  isEnabled(instanceId: string): boolean {
    return this.#configs.isEnabled(instanceId);
  }

  /**
   * Makes an instance known without starting its worker. Declaring it again with the same effective
   * config is a no-op.
   *
   * @throws {CjmError} `CAPABILITY_UNKNOWN`, `INSTANCE_INVALID`, `ADAPTER_INCOMPATIBLE`, or
   *   `CONFIG_INVALID` naming every bad key.
   */
  declare(request: LoadRequest): CapabilityInstance {
    const { spec, dropped } = this.#specOf(request);
    const existing = this.#instances.get(spec.instanceId);
    if (existing !== undefined) {
      if (isSame(existing.spec, spec)) return existing;
      throw new CjmError(
        "INSTANCE_INVALID",
        `Instance "${spec.instanceId}" is loaded with another config; choose another instance id or reload it`,
        { fieldsInvalid: ["instance_id"] },
      );
    }
    const instance = new CapabilityInstance(spec, {
      services: this.#services,
      stalls: this.#stalls,
      onChange: (changed) => {
        for (const listener of this.#listeners) listener(changed);
      },
    });
    if (dropped.length > 0) instance.log.note(`config keys left out: ${dropped.join(", ")}`);
    this.#instances.set(spec.instanceId, instance);
    this.#requests.set(spec.instanceId, request);
    return instance;
  }

  /** Declares an instance, starts its worker, and keeps an explicit config for the next time. */
  async load(request: LoadRequest): Promise<CapabilityInstance> {
    const isKnown = this.#instances.has(request.instanceId ?? request.capability);
    const instance = this.declare(request);
    try {
      await instance.ensureReady();
    } catch (error) {
      if (!isKnown) this.#forget(instance.spec.instanceId);
      throw error;
    }
    if (request.config !== undefined) await this.#keepConfig(instance, "load");
    return instance;
  }

  /** Loads several, at most `maxConcurrent` at once; see {@link Many}. */
  async loadAll(
    requests: readonly LoadRequest[],
    options: Many = {},
  ): Promise<readonly Attempt<LoadRequest, CapabilityInstance>[]> {
    return await forEachLimited(requests, (request) => this.load(request), options);
  }

  /** Ends the instance's worker and forgets the instance. False if it is not loaded. */
  async unload(instanceId: string): Promise<boolean> {
    const instance = this.#instances.get(instanceId);
    if (instance === undefined) return false;
    await instance.stop("unloaded");
    this.#forget(instanceId);
    return true;
  }

  /** Unloads several, or all there are. */
  async unloadAll(
    instanceIds: readonly string[] = [...this.#instances.keys()],
    options: Many = {},
  ): Promise<readonly Attempt<string, boolean>[]> {
    return await forEachLimited(instanceIds, (id) => this.unload(id), options);
  }

  /**
   * Ends the worker, when its calls are over, and starts one of the newest manifest and secrets.
   */
  async reload(instanceId: string): Promise<void> {
    const instance = this.instance(instanceId);
    await this.registry.discover();
    const request = this.#requests.get(instanceId) ?? { capability: instanceId };
    const { config } = instance.spec;
    const { spec } = this.#specOf({
      ...request,
      newInstance: false,
      instanceId,
      strict: false,
      config,
    });
    await instance.respawn("reloaded", { ...spec, isGenerated: instance.spec.isGenerated });
  }

  /**
   * Journals that a secret was set or deleted, then replaces the workers that were started with the
   * old one: a worker gets its secrets when it starts. Secrets of other scopes reach no worker.
   */
  async secretChanged({ capability, key, change, scope }: SecretChange): Promise<SecretEffect> {
    const payload = { key, change, ...(scope !== undefined && { scope }) };
    await this.#services.journal([
      { eventType: "secret_changed", capabilityName: capability, payload },
    ]);
    const concerned = [...this.#instances.values()].filter(
      ({ spec, state }) => spec.definition.name === capability && state !== "absent",
    );
    const ids = concerned.map(({ spec }) => spec.instanceId);
    if (scope !== undefined) return { reloaded: [], failed: [] };
    const attempts = await forEachLimited(ids, (id) => this.#replaceWorker(id), {
      failFast: false,
    });
    return {
      reloaded: attempts.flatMap(({ request, error }) => (error === undefined ? [request] : [])),
      failed: attempts.flatMap(({ request, error }) =>
        error === undefined ? [] : [{ id: request, message: toError(error).message }],
      ),
    };
  }

  /** One that is only starting may have read the old secrets: it is not cut short, but replaced. */
  async #replaceWorker(instanceId: string): Promise<void> {
    await this.instance(instanceId)
      .ensureReady()
      .catch(() => undefined);
    await this.reload(instanceId);
  }

  /**
   * Changes some keys of an instance's config, through the worker's `/reconfigure` where it runs,
   * and keeps the result.
   *
   * @throws {CjmError} `CONFIG_INVALID` naming every bad key; what the worker answers. Nothing has
   *   changed then.
   */
  async updateConfig(
    instanceId: string,
    changes: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const instance = this.instance(instanceId);
    const request = this.#requests.get(instanceId) ?? { capability: instanceId };
    const config = { ...instance.spec.config, ...changes };
    const { spec } = this.#specOf({
      ...request,
      newInstance: false,
      instanceId,
      strict: true,
      config,
    });
    await instance.reconfigure({ ...spec, isGenerated: instance.spec.isGenerated });
    await this.#keepConfig(instance, "reconfigure");
  }

  /** Live choices of config fields, beside the schema; none where the worker fails. */
  async getConfigOptions(instanceId: string): Promise<Readonly<Record<string, unknown>>> {
    return await this.instance(instanceId).configOptions();
  }

  /** Jobs are taken again; the worker's hook runs when no call does. */
  async enable(instanceId: string): Promise<void> {
    await this.#setEnabled(instanceId, true);
  }

  /** No new job is taken; what runs goes on, and the worker's hook runs when it is over. */
  async disable(instanceId: string): Promise<void> {
    await this.#setEnabled(instanceId, false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#instances.values()].map((one) => one.stop("host stopped")));
    this.#instances.clear();
  }

  #forget(instanceId: string): void {
    this.#instances.delete(instanceId);
    this.#requests.delete(instanceId);
  }

  async #setEnabled(instanceId: string, enabled: boolean): Promise<void> {
    const instance = this.instance(instanceId);
    const phase = enabled ? "enable" : "disable";
    if (this.isEnabled(instanceId) === enabled) return;
    const { config } = this.#configs.record(instanceId) ?? { config: {} };
    await this.#keep(instance, { phase, enabled, config });
    instance.deferHook(`/on_${phase}`, () => this.isEnabled(instanceId) === enabled);
  }

  async #keepConfig(instance: CapabilityInstance, phase: string): Promise<void> {
    const { instanceId, isGenerated, config } = instance.spec;
    if (isGenerated) return;
    await this.#keep(instance, { phase, enabled: this.isEnabled(instanceId), config });
  }

  async #keep(
    { spec, log }: CapabilityInstance,
    kept: {
      readonly phase: string;
      readonly enabled: boolean;
      readonly config: Readonly<Record<string, unknown>>;
    },
  ): Promise<void> {
    const { phase, enabled, config } = kept;
    const payload = { phase, config_keys: Object.keys(config).sort(), enabled };
    await this.#configs.keep(
      { instanceId: spec.instanceId, capabilityName: spec.definition.name, config, enabled },
      { op: "journal.append", event: log.entry("config_applied", null, payload) },
    );
  }

  #specOf(request: LoadRequest): { spec: InstanceSpec; dropped: readonly string[] } {
    const definition = this.registry.definition(request.capability);
    const { code } = definition.manifest;
    const isGenerated = request.newInstance === true;
    const instanceId = isGenerated
      ? `${code.name.slice(0, 57)}-${randomHex(3)}`
      : (request.instanceId ?? code.name);
    checkLoadable(definition, instanceId);
    const { config, dropped } = this.#effective(definition, instanceId, request);
    const spec = {
      instanceId,
      definition,
      config,
      configHash: hashCanonical(config),
      maxConcurrentRequests: request.maxConcurrentRequests ?? code.max_concurrent_requests ?? 1,
      adapters: selectAdapters(definition, this.registry.adapters, request.adapters),
      isGenerated,
    };
    return { spec, dropped };
  }

  #effective(
    definition: DiscoveredManifest,
    instanceId: string,
    { config, strict, newInstance }: LoadRequest,
  ): EffectiveConfig {
    const usePersisted = newInstance !== true;
    return this.#configs.effective(definition, {
      instanceId,
      explicit: config,
      strict,
      usePersisted,
    });
  }
}

function isSame(a: InstanceSpec, b: InstanceSpec): boolean {
  return a.configHash === b.configHash && a.definition.name === b.definition.name;
}

function checkLoadable({ supported, manifest }: DiscoveredManifest, instanceId: string): void {
  const { code } = manifest;
  if (!NAME_PATTERN.test(instanceId)) {
    throw new CjmError(
      "INSTANCE_INVALID",
      `Instance id "${instanceId}" must be 1 to 64 letters, digits, "_" or "-"`,
      { fieldsInvalid: ["instance_id"] },
    );
  }
  if (supported) return;
  throw new CjmError(
    "CAPABILITY_NOT_INSTALLED",
    `Capability "${code.name}" does not support this platform; it names ${code.resources?.platforms.join(", ")}`,
  );
}
