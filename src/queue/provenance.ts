import type { CompositionRun } from "../composition/index.ts";
import { dirRefSchema, fileRefSchema } from "../protocol/index.ts";
import type { Provenance } from "../store/index.ts";
import { compact } from "../util/compact.ts";
import { isRecord } from "../util/record.ts";
import type { JobEntry } from "./job.ts";

/** What a node's result comes from, by content; complete when the node is. */
export function provenanceOf(
  run: CompositionRun,
  node: { readonly id: string; readonly state: string; readonly result: unknown },
  entry: JobEntry | undefined,
): Provenance {
  if (entry === undefined) return {};
  const upstream = [...(run.dependencies.get(node.id) ?? [])];
  return compact({
    codeHash: entry.spec.codeHash ?? undefined,
    configHash: entry.spec.configHash,
    inputHashes: nonEmpty(contentHashes(entry.spec.kwargs)),
    outputHashes: node.state === "completed" ? nonEmpty(contentHashes(node.result)) : undefined,
    upstream: upstream.length === 0 ? undefined : upstream,
  });
}

/** Dotted path to content hash of every file and folder that a value refers to. */
export function contentHashes(value: unknown, path = ""): Readonly<Record<string, string>> {
  const found: Record<string, string> = {};
  collect(value, path, found);
  return found;
}

function collect(value: unknown, path: string, found: Record<string, string>): void {
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) collect(item, join(path, String(index)), found);
    return;
  }
  if (!isRecord(value)) return;
  const file = "__wire__" in value ? fileRefSchema.or(dirRefSchema).safeParse(value) : undefined;
  if (file?.success === true) {
    found[path] = file.data.data.sha256;
    return;
  }
  for (const [key, member] of Object.entries(value)) collect(member, join(path, key), found);
}

function join(path: string, key: string): string {
  return path === "" ? key : `${path}.${key}`;
}

function nonEmpty(
  hashes: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> | undefined {
  return Object.keys(hashes).length === 0 ? undefined : hashes;
}
