import type { AdapterManifest, ManifestInput } from "../protocol/index.ts";
import { hashCanonical } from "../util/canonical-json.ts";
import { compact } from "../util/compact.ts";
import type { CodeSection } from "./introspect.ts";

/** The code section as it is written: what the worker said, and from what code at what time. */
export function codeOf(
  code: CodeSection,
  codeHash: string | undefined,
  regeneratedAt: string,
): ManifestInput["code"] {
  return compact({ ...code, code_hash: codeHash, regenerated_at: regeneratedAt });
}

/** The hashes by which drift of the live worker is judged. */
export function driftOf(code: CodeSection): ManifestInput["drift_tracking"] {
  const surface = code.structural_surface ?? undefined;
  return {
    config_schema_hash: hashCanonical(code.config_schema ?? {}),
    structural_surface_hash: surface === undefined ? null : hashCanonical(surface),
  };
}

/** File name of an adapter's manifest, as the original names it. */
export function adapterFile({ task_name, class: className }: AdapterManifest): string {
  return `adapter-${task_name.replaceAll(/[^\w.-]/gu, "_")}-${className}.json`;
}
