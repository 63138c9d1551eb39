import { isRecord } from "../util/record.ts";

/**
 * A composition file's content in which every node says `control.force`: no result is taken from a
 * cache, the host's or the tool's own. What is no composition stays as it is, for the parser to tell.
 */
export function forceAll(document: unknown): unknown {
  if (!isRecord(document)) return document;
  if (Array.isArray(document["nodes"])) {
    return { ...document, nodes: document["nodes"].map(forceNode) };
  }
  if (!isRecord(document["nodes"])) return document;
  const nodes = Object.entries(document["nodes"]).map(([id, node]) => [id, forceNode(node)]);
  return { ...document, nodes: Object.fromEntries(nodes) as unknown };
}

function forceNode(node: unknown): unknown {
  if (!isRecord(node)) return node;
  const { control = {} } = node;
  return isRecord(control) ? { ...node, control: { ...control, force: true } } : node;
}
