import {
  type DiscoveredAdapter,
  type DiscoveredManifest,
  type FileProblem,
  loadManifests,
} from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import { closest } from "../util/suggest.ts";
import { type AdapterVerdict, matchAdapter } from "./adapters.ts";

/** The capabilities and task adapters whose manifests this host has found; none need be loaded. */
export class CapabilityRegistry {
  readonly #searchPaths: readonly string[];
  #definitions: ReadonlyMap<string, DiscoveredManifest> = new Map();
  #adapters: ReadonlyMap<string, DiscoveredAdapter> = new Map();
  #problems: readonly FileProblem[] = [];

  constructor(searchPaths: readonly string[]) {
    this.#searchPaths = searchPaths;
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

  adaptersForTask(task: string): readonly DiscoveredAdapter[] {
    return [...this.#adapters.values()].filter(({ manifest }) => manifest.task_name === task);
  }

  /** @throws {CjmError} `CAPABILITY_UNKNOWN`; `ADAPTER_INCOMPATIBLE` if there is no such adapter. */
  checkAdapter(adapter: string, capability: string): AdapterVerdict {
    const { manifest } = this.definition(capability);
    const { protocol_members } = this.#adapter(adapter).manifest;
    return matchAdapter(protocol_members, manifest.code.structural_surface);
  }

  /** Names of the capabilities whose recorded surface the adapter fits, sorted. */
  capabilitiesFor(adapter: string): readonly string[] {
    this.#adapter(adapter);
    const names = [...this.#definitions.keys()].sort();
    return names.filter((name) => this.checkAdapter(adapter, name).compatible);
  }

  #adapter(name: string): DiscoveredAdapter {
    const adapter = this.#adapters.get(name);
    if (adapter !== undefined) return adapter;
    const known = [...this.#adapters.keys()].join(", ") || "none";
    throw new CjmError(
      "ADAPTER_INCOMPATIBLE",
      `No task adapter is called "${name}"; there are: ${known}`,
      { fieldsInvalid: ["adapter"] },
    );
  }
}
