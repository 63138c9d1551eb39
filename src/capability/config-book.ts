import { type DiscoveredManifest, resolveInstanceConfig } from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import type { InstanceConfigRecord, StorePort, StoreWrite } from "../store/index.ts";

type Values = Readonly<Record<string, unknown>>;

export interface ConfigRequest {
  readonly instanceId: string;
  readonly explicit?: Values | undefined;
  /** Unknown keys are an error. @default true */
  readonly strict?: boolean | undefined;
  /** What was kept for this instance id counts. */
  readonly usePersisted: boolean;
}

export interface EffectiveConfig {
  readonly config: Values;
  /** Keys that were kept or asked for and that the schema does not have or allow. */
  readonly dropped: readonly string[];
}

/** The configuration and the enabled flag that are kept for each instance id. */
export class ConfigBook {
  readonly #store: StorePort;
  readonly #records: Map<string, InstanceConfigRecord>;

  private constructor(store: StorePort, records: readonly InstanceConfigRecord[]) {
    this.#store = store;
    this.#records = new Map(records.map((record) => [record.instanceId, record]));
  }

  static async open(store: StorePort): Promise<ConfigBook> {
    return new ConfigBook(store, await store.listInstanceConfigs());
  }

  isEnabled(instanceId: string): boolean {
    return this.#records.get(instanceId)?.enabled ?? true;
  }

  /**
   * Schema defaults, then what was kept, then what is asked for, key by key. A kept value that the
   * schema does not allow any more is dropped: an upgrade must not make an instance unloadable.
   *
   * @throws {CjmError} `CONFIG_INVALID` naming every bad key.
   */
  effective({ manifest }: DiscoveredManifest, request: ConfigRequest): EffectiveConfig {
    const { instanceId, explicit, strict, usePersisted } = request;
    const schema = manifest.code.config_schema;
    const record = this.#records.get(instanceId);
    const isSame = record?.capabilityName === manifest.code.name;
    const persisted = usePersisted && isSame ? record.config : {};
    const first = resolveInstanceConfig({ schema, persisted, explicit, strict });
    const stale = first.errors
      .map(({ key }) => key.split(/[.[]/u)[0] ?? "")
      .filter((key) => key in persisted && !(key in (explicit ?? {})));
    const kept = Object.entries(persisted).filter(([key]) => !stale.includes(key));
    const { config, dropped, errors } =
      stale.length === 0
        ? first
        : resolveInstanceConfig({
            schema,
            persisted: Object.fromEntries(kept),
            explicit,
            strict,
          });
    if (errors.length === 0) return { config, dropped: [...dropped, ...stale] };
    const list = errors.map(({ key, message }) => `${key || "(config)"}: ${message}`);
    throw new CjmError("CONFIG_INVALID", `Config of "${instanceId}": ${list.join("; ")}`, {
      fieldsInvalid: errors.map(({ key }) => key),
    });
  }

  /** Keeps an instance's config or flag, with the journal row that says so, in one commit. */
  async keep(
    record: Omit<InstanceConfigRecord, "updatedAt">,
    row: StoreWrite & { readonly op: "journal.append" },
  ): Promise<void> {
    const dated = { ...record, updatedAt: new Date().toISOString() };
    await this.#store.stage([{ op: "config.put", config: dated }, row]);
    this.#records.set(record.instanceId, dated);
  }

  /** What is kept for an instance now. */
  record(instanceId: string): InstanceConfigRecord | undefined {
    return this.#records.get(instanceId);
  }
}
