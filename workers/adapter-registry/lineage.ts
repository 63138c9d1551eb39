/** The parents of an adapter, in order; undefined for an id that is not known. */
export type ParentsOf = (id: string) => readonly string[] | undefined;

/** An adapter, its first parent, that one's first parent, and so on; a cycle ends it. */
export function lineage(id: string, parentsOf: ParentsOf): string[] {
  const ids: string[] = [];
  const seen = new Set<string>();
  for (let next: string | undefined = id; next !== undefined && !seen.has(next);) {
    seen.add(next);
    ids.push(next);
    [next] = parentsOf(next) ?? [];
  }
  return ids;
}

/** The parents of an adapter and of each of its ancestors; one that is not known has none. */
export function lineageDag(id: string, parentsOf: ParentsOf): Record<string, readonly string[]> {
  const dag = new Map<string, readonly string[]>();
  const queue = [id];
  for (const next of queue) {
    if (dag.has(next)) continue;
    const parents = parentsOf(next) ?? [];
    dag.set(next, parents);
    queue.push(...parents);
  }
  return Object.fromEntries(dag);
}
