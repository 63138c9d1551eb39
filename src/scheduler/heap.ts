/** A binary min-heap in a plain array, so that states which hold one can be cloned as data. */
export interface HeapEntry {
  readonly rank: number;
  readonly id: string;
}

const SLACK = 64;

export function heapPush(heap: HeapEntry[], entry: HeapEntry): void {
  let at = heap.push(entry) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = heap[parent];
    if (above === undefined || above.rank <= entry.rank) break;
    heap[at] = above;
    at = parent;
  }
  heap[at] = entry;
}

/** Removes and returns the entry with the smallest rank. */
export function heapPop(heap: HeapEntry[]): HeapEntry | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (top === undefined || last === undefined || heap.length === 0) return top;
  let at = 0;
  for (;;) {
    const child = smallerChild(heap, at);
    const below = heap[child];
    if (below === undefined || below.rank >= last.rank) break;
    heap[at] = below;
    at = child;
  }
  heap[at] = last;
  return top;
}

/** Drops entries that are not live any more, or are there twice, when they are the majority. */
export function heapCompact(
  heap: HeapEntry[],
  live: number,
  isLive: (entry: HeapEntry) => boolean,
): void {
  if (heap.length <= 2 * live + SLACK) return;
  // An array in ascending order is a heap.
  const seen = new Set<string>();
  const kept = heap
    .filter((entry) => isLive(entry) && seen.size < seen.add(entry.id).size)
    .sort((a, b) => a.rank - b.rank);
  heap.length = 0;
  for (const entry of kept) heap.push(entry);
}

function smallerChild(heap: readonly HeapEntry[], at: number): number {
  const left = 2 * at + 1;
  const [a, b] = [heap[left], heap[left + 1]];
  return a !== undefined && b !== undefined && b.rank < a.rank ? left + 1 : left;
}
