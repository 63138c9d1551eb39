import { type NodeRecord, type StoreReads, WHOLE_NODE } from "../store/index.ts";

/** A node in the web of what came from what. */
export interface TracedNode {
  readonly compositionId: string;
  readonly nodeId: string;
  readonly state: NodeRecord["state"];
  readonly jobId: string | null;
  readonly codeHash: string | null;
  readonly configHash: string | null;
  /** Hashes of the files and folders it was given and gave, by path in its kwargs and result. */
  readonly inputs: Readonly<Record<string, string>>;
  readonly outputs: Readonly<Record<string, string>>;
  /** Steps from what was asked about: 0 is that itself, negative what it came from, positive what came of it. */
  readonly distance: number;
}

/** What is traced: everything that has this content hash, or one node. */
export type TraceStart =
  { readonly hash: string } | { readonly compositionId: string; readonly nodeId: string };

/** A web can be the whole store; beyond this the nearest are told. */
const MAX_NODES = 1_000;

/**
 * Walks provenance both ways: along the edges of a composition, and from one composition to another
 * where a file that one made is given to the other. Nearest first.
 */
export async function trace(start: TraceStart, store: StoreReads): Promise<readonly TracedNode[]> {
  const walk = new Walk(store);
  const roots =
    "hash" in start
      ? (await store.nodesByHash(start.hash)).filter((row) => row.itemIndex === WHOLE_NODE)
      : await walk.rows(start.compositionId, (row) => row.nodeId === start.nodeId);
  const found = new Map<string, TracedNode>();
  for (const direction of [-1, 1] as const) {
    const seen = new Set(roots.map(address));
    let ring = roots;
    for (let distance = 0; ring.length > 0 && found.size < MAX_NODES; distance += direction) {
      const fresh = ring.filter((row) => !found.has(address(row)));
      for (const row of fresh) found.set(address(row), told(row, distance));
      const next = (await Promise.all(ring.map((row) => walk.neighbours(row, direction)))).flat();
      ring = next.filter((row) => !seen.has(address(row)));
      for (const row of ring) seen.add(address(row));
    }
  }
  return [...found.values()].toSorted((a, b) => Math.abs(a.distance) - Math.abs(b.distance));
}

class Walk {
  readonly #store: StoreReads;
  readonly #compositions = new Map<string, Promise<readonly NodeRecord[]>>();

  constructor(store: StoreReads) {
    this.#store = store;
  }

  async rows(id: string, keep: (row: NodeRecord) => boolean): Promise<readonly NodeRecord[]> {
    let rows = this.#compositions.get(id);
    if (rows === undefined) {
      rows = this.#store.nodeRuns(id);
      this.#compositions.set(id, rows);
    }
    return (await rows).filter((row) => row.itemIndex === WHOLE_NODE && keep(row));
  }

  async neighbours(row: NodeRecord, direction: -1 | 1): Promise<readonly NodeRecord[]> {
    const { upstream = [], inputHashes = {}, outputHashes = {} } = row.provenance;
    const within = await this.rows(row.compositionId, (other) =>
      direction < 0
        ? upstream.includes(other.nodeId)
        : (other.provenance.upstream ?? []).includes(row.nodeId),
    );
    const hashes = new Set(Object.values(direction < 0 ? inputHashes : outputHashes));
    const across: NodeRecord[] = [];
    for (const hash of hashes) {
      const users = await this.#store.nodesByHash(hash);
      across.push(
        ...users.filter(({ itemIndex, provenance }) => {
          const side = direction < 0 ? provenance.outputHashes : provenance.inputHashes;
          return itemIndex === WHOLE_NODE && Object.values(side ?? {}).includes(hash);
        }),
      );
    }
    return [...within, ...across];
  }
}

function address({ compositionId, nodeId }: NodeRecord): string {
  return `${compositionId}/${nodeId}`;
}

function told(row: NodeRecord, distance: number): TracedNode {
  const { compositionId, nodeId, state, jobId, provenance } = row;
  return {
    compositionId,
    nodeId,
    state,
    jobId,
    codeHash: provenance.codeHash ?? null,
    configHash: provenance.configHash ?? null,
    inputs: provenance.inputHashes ?? {},
    outputs: provenance.outputHashes ?? {},
    distance,
  };
}
