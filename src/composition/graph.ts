import { findRefs, parseRef } from "./refs.ts";
import type { CompositionNode } from "./types.ts";

/** Which nodes a node needs. */
export interface Dependencies {
  /** Every node that some marker of this node names. */
  readonly all: ReadonlySet<string>;
  /** Those among them that only optional markers name. */
  readonly optional: ReadonlySet<string>;
}

const NOTHING: Dependencies = { all: new Set(), optional: new Set() };

/** The nodes that the markers in a node's kwargs, `when` and `for_each` name. */
export function dependencies(node: CompositionNode): Dependencies {
  const found = findRefs([node.kwargs, node.when, node.forEach]);
  // Shared: a wide fan has ten thousand nodes that need nothing.
  if (found.length === 0) return NOTHING;
  const required = new Set<string>();
  const all = new Set<string>();
  for (const { marker } of found) {
    const target = parseRef(marker);
    if (target?.kind !== "node") continue;
    all.add(target.node);
    if (marker.optional !== true) required.add(target.node);
  }
  return { all, optional: new Set([...all].filter((id) => !required.has(id))) };
}

/**
 * One cycle of the graph as a list of ids whose last needs the first, or undefined.
 *
 * Depth-first with an explicit stack: a chain may be as long as a composition is large.
 */
export function findCycle(
  graph: ReadonlyMap<string, ReadonlySet<string>>,
): readonly string[] | undefined {
  const finished = new Set<string>();
  for (const start of graph.keys()) {
    const cycle = finished.has(start) ? undefined : cycleFrom(start, graph, finished);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

function cycleFrom(
  start: string,
  graph: ReadonlyMap<string, ReadonlySet<string>>,
  finished: Set<string>,
): readonly string[] | undefined {
  const trail = [{ id: start, needs: needsOf(start, graph), next: 0 }];
  const onTrail = new Set([start]);
  for (let last = trail.at(-1); last !== undefined; last = trail.at(-1)) {
    const next = last.needs[last.next];
    last.next += 1;
    if (next === undefined) {
      trail.pop();
      onTrail.delete(last.id);
      finished.add(last.id);
    } else if (onTrail.has(next)) {
      const ids = trail.map(({ id }) => id);
      return ids.slice(ids.indexOf(next));
    } else if (!finished.has(next)) {
      trail.push({ id: next, needs: needsOf(next, graph), next: 0 });
      onTrail.add(next);
    }
  }
  return undefined;
}

function needsOf(node: string, graph: ReadonlyMap<string, ReadonlySet<string>>): readonly string[] {
  return [...(graph.get(node) ?? [])];
}
