import {
  type DiscoveredAdapter,
  type DiscoveredManifest,
  type FileProblem,
  loadManifests,
  resolveInstanceConfig,
} from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import type { InstanceConfigRecord, StorePort } from "../store/index.ts";
import { hashCanonical } from "../util/canonical-json.ts";
import { NAME_PATTERN, randomHex } from "../util/ids.ts";
import { closest } from "../util/suggest.ts";
import { CapabilityInstance, type InstanceSpec } from "./instance.ts";
import type { InstanceServices } from "./services.ts";

/** Which capability to load, as what, and how configured. */
export interface LoadRequest {
  readonly capability: string;
  /** @default the capability's name */
  readonly instanceId?: string | undefined;
  /** Makes an id `<capability>-<6 hex>`; such an instance's config is never persisted. */
  readonly newInstance?: boolean | undefined;
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  readonly maxConcurrentRequests?: number | undefined;
  /** Unknown config keys are an error. @default true */
  readonly strict?: boolean | undefined;
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
  readonly #services: InstanceServices;
  readonly #store: StorePort;
  readonly #searchPaths: readonly string[];
  readonly #instances = new Map<string, CapabilityInstance>();
  readonly #persisted: Map<string, InstanceConfigRecord>;
  readonly #listeners = new Set<(instance: CapabilityInstance) => void>();
  #definitions: ReadonlyMap<string, DiscoveredManifest> = new Map();
  #adapters: ReadonlyMap<string, DiscoveredAdapter> = new Map();
  #problems: readonly FileProblem[] = [];

  private constructor(options: ManagerOptions, persisted: readonly InstanceConfigRecord[]) {
    this.#services = options.services;
    this.#store = options.store;
    this.#searchPaths = options.searchPaths;
    this.#persisted = new Map(persisted.map((record) => [record.instanceId, record]));
  }

  static async open(options: ManagerOptions): Promise<CapabilityManager> {
    const manager = new CapabilityManager(options, await options.store.listInstanceConfigs());
    await manager.discover();
    return manager;
  }

  /** Reads the manifests again; loaded instances keep the one they were loaded with. */
  async discover(): Promise<void> {
    const found = await loadManifests(this.#searchPaths);
    this.#definitions = found.capabilities;
    this.#adapters = found.adapters;
    this.#problems = found.problems;
  }

  get definitions(): ReadonlyMap<string, DiscoveredManifest> {
    return this.#definitions;
  }

  get adapters(): ReadonlyMap<string, DiscoveredAdapter> {
    return this.#adapters;
  }

  /** Manifests that could not be read. */
  get problems(): readonly FileProblem[] {
    return this.#problems;
  }

  get instances(): ReadonlyMap<string, CapabilityInstance> {
    return this.#instances;
  }

  /** @throws {CjmError} `CAPABILITY_UNKNOWN`, naming the closest known one. */
  definition(name: string): DiscoveredManifest {
    const definition = this.#definitions.get(name);
    if (definition !== undefined) return definition;
    const meant = closest(name, [...this.#definitions.keys()]);
    const hint =
      meant === undefined ? "cjm-ctl list shows what there is" : `did you mean "${meant}"?`;
    throw new CjmError("CAPABILITY_UNKNOWN", `No capability is called "${name}"; ${hint}`, {
      fieldsInvalid: ["capability"],
    });
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

  isEnabled(instanceId: string): boolean {
    return this.#persisted.get(instanceId)?.enabled ?? true;
  }

  /**
   * Makes an instance known without starting its worker. Declaring it again with the same effective
   * config is a no-op.
   *
   * @throws {CjmError} `CAPABILITY_UNKNOWN`, `INSTANCE_INVALID`, or `CONFIG_INVALID` naming every bad key.
   */
  declare(request: LoadRequest): CapabilityInstance {
    const definition = this.definition(request.capability);
    const spec = this.#spec(definition, request);
    const existing = this.#instances.get(spec.instanceId);
    if (existing !== undefined) {
      if (existing.spec.configHash === spec.configHash) return existing;
      throw new CjmError(
        "INSTANCE_INVALID",
        `Instance "${spec.instanceId}" is loaded with another config; choose another instance id or reload it`,
        { fieldsInvalid: ["instance_id"] },
      );
    }
    const instance = new CapabilityInstance(spec, this.#services, (changed) => {
      for (const listener of this.#listeners) listener(changed);
    });
    this.#instances.set(spec.instanceId, instance);
    return instance;
  }

  /** Declares an instance, starts its worker, and keeps an explicit config for the next time. */
  async load(request: LoadRequest): Promise<CapabilityInstance> {
    const isKnown = this.#instances.has(request.instanceId ?? request.capability);
    const instance = this.declare(request);
    try {
      await instance.ensureReady();
    } catch (error) {
      if (!isKnown) this.#instances.delete(instance.spec.instanceId);
      throw error;
    }
    if (request.config !== undefined && request.newInstance !== true) {
      await this.#persist(instance.spec);
    }
    return instance;
  }

  /** Ends the instance's worker and forgets the instance. False if it is not loaded. */
  async unload(instanceId: string): Promise<boolean> {
    const instance = this.#instances.get(instanceId);
    if (instance === undefined) return false;
    await instance.stop("unloaded");
    this.#instances.delete(instanceId);
    return true;
  }

  /** Ends the worker and starts a new one; a new environment or secret takes effect. */
  async reload(instanceId: string): Promise<void> {
    const instance = this.instance(instanceId);
    await instance.stop("reloaded");
    await instance.ensureReady();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#instances.values()].map((one) => one.stop("host stopped")));
    this.#instances.clear();
  }

  #spec(definition: DiscoveredManifest, request: LoadRequest): InstanceSpec {
    const { code } = definition.manifest;
    const instanceId =
      request.newInstance === true
        ? `${code.name}-${randomHex(3)}`
        : (request.instanceId ?? code.name);
    if (!NAME_PATTERN.test(instanceId)) {
      throw new CjmError(
        "INSTANCE_INVALID",
        `Instance id "${instanceId}" must be 1 to 64 letters, digits, "_" or "-"`,
        { fieldsInvalid: ["instance_id"] },
      );
    }
    if (!definition.supported) {
      throw new CjmError(
        "CAPABILITY_NOT_INSTALLED",
        `Capability "${code.name}" does not support this platform; it names ${code.resources?.platforms.join(", ")}`,
      );
    }
    const config = this.#effectiveConfig(definition, instanceId, request);
    return {
      instanceId,
      definition,
      config,
      configHash: hashCanonical(config),
      maxConcurrentRequests: request.maxConcurrentRequests ?? code.max_concurrent_requests ?? 1,
    };
  }

  #effectiveConfig(
    definition: DiscoveredManifest,
    instanceId: string,
    { config, strict, newInstance }: LoadRequest,
  ): Readonly<Record<string, unknown>> {
    const resolved = resolveInstanceConfig({
      schema: definition.manifest.code.config_schema,
      persisted: newInstance === true ? undefined : this.#persisted.get(instanceId)?.config,
      explicit: config,
      strict,
    });
    if (resolved.errors.length === 0) return resolved.config;
    const list = resolved.errors.map(({ key, message }) => `${key || "(config)"}: ${message}`);
    throw new CjmError("CONFIG_INVALID", `Config of "${instanceId}": ${list.join("; ")}`, {
      fieldsInvalid: resolved.errors.map(({ key }) => key),
    });
  }

  async #persist(spec: InstanceSpec): Promise<void> {
    const record: InstanceConfigRecord = {
      instanceId: spec.instanceId,
      capabilityName: spec.definition.name,
      config: spec.config,
      enabled: this.isEnabled(spec.instanceId),
      updatedAt: new Date().toISOString(),
    };
    await this.#store.stage([{ op: "config.put", config: record }]);
    this.#persisted.set(record.instanceId, record);
  }
}
