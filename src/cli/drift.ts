import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { DiscoveredManifest } from "../config/index.ts";
import { newestStarts } from "../store/index.ts";

/** Starts looked through, newest first; a capability that was not among them is not known. */
const STARTS = 1_000;

/**
 * What each capability's newest worker said of itself that its manifest says otherwise. A start
 * before the manifest was written tells nothing of it.
 */
export async function recordedDrift(
  dataDir: string,
  manifests: Iterable<DiscoveredManifest>,
): Promise<ReadonlyMap<string, string[]>> {
  const starts = await newestStarts(join(dataDir, "journal.db"), STARTS);
  const drift = new Map<string, string[]>();
  for (const { name, path } of manifests) {
    const newest = starts.find(({ capabilityName }) => capabilityName === name);
    if (newest === undefined || Date.parse(newest.ts) < (await stat(path)).mtimeMs) continue;
    const found = newest.payload["drift"];
    if (!Array.isArray(found)) continue;
    drift.set(
      name,
      found.filter((what) => typeof what === "string"),
    );
  }
  return drift;
}
