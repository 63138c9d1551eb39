import { existsSync } from "node:fs";
import { join } from "node:path";
import { CjmError } from "../../errors/index.ts";
import { ContentHashes, trace, type TracedNode, type TraceStart } from "../../queue/index.ts";
import { openJournalReader } from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, print, printJson, table } from "../terminal.ts";

export interface TraceOptions extends GlobalOptions {
  readonly json?: boolean;
}

/** Where a file, a content hash or a node comes from, and what came of it. */
export async function traceCommand(what: string, options: TraceOptions): Promise<number> {
  const { dataDir } = await configOf(options);
  const start = await startOf(what);
  await using store = await openJournalReader(join(dataDir, "journal.db"));
  const nodes = store === undefined ? [] : await trace(start, store);
  if (nodes.length === 0) {
    throw new CjmError("JOB_UNKNOWN", `No node in ${dataDir} is, made or was given ${what}`);
  }
  if (options.json === true) printJson(nodes.map(toWire));
  else print(table(nodes.toSorted((a, b) => a.distance - b.distance).map(cells)));
  return EXIT.ok;
}

/** A hash, a path, or `<composition>/<node>`. */
async function startOf(what: string): Promise<TraceStart> {
  if (/^sha256:[0-9a-f]{64}$/u.test(what)) return { hash: what };
  if (existsSync(what)) return { hash: await new ContentHashes().file(what) };
  const [compositionId = "", ...rest] = what.split("/");
  return { compositionId, nodeId: rest.join("/") };
}

function cells(node: TracedNode): string[] {
  const where = node.distance === 0 ? "is it" : node.distance < 0 ? "before" : "after";
  return [
    color.dim(where),
    `${node.compositionId.slice(0, 8)}/${node.nodeId}`,
    node.state,
    ...[node.inputs, node.outputs].map((hashes) => files(hashes)),
  ];
}

function files(hashes: Readonly<Record<string, string>>): string {
  return Object.entries(hashes)
    .map(([path, hash]) => `${path || "result"}=${hash.slice(0, 19)}`)
    .join(" ");
}

function toWire(node: TracedNode): unknown {
  return {
    composition_id: node.compositionId,
    node_id: node.nodeId,
    state: node.state,
    job_id: node.jobId,
    code_hash: node.codeHash,
    config_hash: node.configHash,
    inputs: node.inputs,
    outputs: node.outputs,
    distance: node.distance,
  };
}
