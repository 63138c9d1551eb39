import type { DiscoveredManifest } from "../config/index.ts";
import type { BoundAdapter } from "./adapters.ts";

/** What an instance is: a capability with one effective config. */
export interface InstanceSpec {
  readonly instanceId: string;
  readonly definition: DiscoveredManifest;
  readonly config: Readonly<Record<string, unknown>>;
  readonly configHash: string;
  readonly maxConcurrentRequests: number;
  /** Task adapters its worker loads beside the capability's own. */
  readonly adapters: readonly BoundAdapter[];
  /** The id was made up: nothing is kept for it. */
  readonly isGenerated: boolean;
}
