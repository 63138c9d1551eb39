/** A node to be placed and those it stands behind. */
export interface DagNode {
  readonly id: string;
  readonly needs: readonly string[];
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** Where everything is; an edge goes through its points. */
export interface DagLayout {
  readonly width: number;
  readonly height: number;
  readonly nodes: ReadonlyMap<string, Point>;
  readonly edges: readonly {
    readonly from: string;
    readonly to: string;
    readonly points: readonly Point[];
  }[];
}

export interface DagSizes {
  readonly nodeWidth: number;
  readonly nodeHeight: number;
  readonly gapX: number;
  readonly gapY: number;
}

/** A node, or the place at which a long edge passes a layer. */
interface Slot {
  readonly key: string;
  readonly width: number;
  /** Slots of the layer above that it hangs on, and of the layer below. */
  readonly up: Slot[];
  readonly down: Slot[];
  x: number;
}

const PASSING_WIDTH = 14;
const SWEEPS = 8;

/**
 * Layers from top to bottom, after Sugiyama, Tagawa and Toda (1981): each node below all it needs,
 * edges routed through the layers they pass, layers ordered by the mean place of their neighbours.
 * Edges that others imply are left out.
 */
export function layOut(nodes: readonly DagNode[], sizes: DagSizes): DagLayout {
  const needs = reduced(nodes);
  const depth = depths(needs);
  const layers: Slot[][] = [];
  const slots = new Map<string, Slot>();
  for (const [id, level] of depth) {
    const slot = { key: id, width: sizes.nodeWidth, up: [], down: [], x: 0 };
    slots.set(id, slot);
    (layers[level] ??= []).push(slot);
  }
  const routes = [...needs].flatMap(([to, froms]) =>
    [...froms].map((from) => ({ from, to, slots: route(from, to, { layers, slots, depth }) })),
  );
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) arrange(layers, sweep % 2 === 0, sizes.gapX);
  const left = Math.min(...layers.flat().map((slot) => slot.x - slot.width / 2));
  const right = Math.max(...layers.flat().map((slot) => slot.x + slot.width / 2));
  const yOf = (level: number): number => level * (sizes.nodeHeight + sizes.gapY);
  const place = (slot: Slot, level: number): Point => ({ x: slot.x - left, y: yOf(level) });
  return {
    width: right - left,
    height: yOf(layers.length) - sizes.gapY,
    nodes: new Map([...depth].map(([id, level]) => [id, place(required(slots, id), level)])),
    edges: routes.map(({ from, to, slots: passed }) => {
      const first = required(depth, from);
      return { from, to, points: passed.map((slot, at) => place(slot, first + at)) };
    }),
  };
}

/** What each node needs, without what one of its other needs already needs. */
function reduced(nodes: readonly DagNode[]): Map<string, ReadonlySet<string>> {
  const direct = new Map(nodes.map(({ id, needs }) => [id, new Set(needs)]));
  const behind = new Map<string, Set<string>>();
  const ancestors = (id: string): Set<string> => {
    const known = behind.get(id);
    if (known !== undefined) return known;
    const all = new Set<string>();
    behind.set(id, all);
    for (const need of direct.get(id) ?? []) {
      all.add(need);
      for (const one of ancestors(need)) all.add(one);
    }
    return all;
  };
  return new Map(
    nodes.map(({ id, needs }) => {
      const implied = (need: string): boolean =>
        needs.some((other) => other !== need && ancestors(other).has(need));
      return [id, new Set(needs.filter((need) => direct.has(need) && !implied(need)))];
    }),
  );
}

function depths(needs: ReadonlyMap<string, ReadonlySet<string>>): Map<string, number> {
  const depth = new Map<string, number>();
  const of = (id: string): number => {
    const known = depth.get(id);
    if (known !== undefined) return known;
    // Against a cycle, which no stored composition has.
    depth.set(id, 0);
    const level = Math.max(-1, ...[...(needs.get(id) ?? [])].map(of)) + 1;
    depth.set(id, level);
    return level;
  };
  for (const id of needs.keys()) of(id);
  return depth;
}

interface Grid {
  readonly layers: Slot[][];
  readonly slots: ReadonlyMap<string, Slot>;
  readonly depth: ReadonlyMap<string, number>;
}

/** The slots of an edge, one in each layer from its source to its target. */
function route(from: string, to: string, { layers, slots, depth }: Grid): Slot[] {
  const passed = [required(slots, from)];
  for (let level = required(depth, from) + 1; level < required(depth, to); level += 1) {
    const slot = { key: `${from}>${to}`, width: PASSING_WIDTH, up: [], down: [], x: 0 };
    (layers[level] ??= []).push(slot);
    passed.push(slot);
  }
  passed.push(required(slots, to));
  for (const [at, slot] of passed.slice(1).entries()) {
    const above = passed[at];
    if (above === undefined) continue;
    slot.up.push(above);
    above.down.push(slot);
  }
  return passed;
}

/** Orders each layer by where its neighbours are, and moves its slots there as far as there is room. */
function arrange(layers: readonly Slot[][], isDownwards: boolean, gap: number): void {
  const order = isDownwards ? layers : layers.toReversed();
  for (const layer of order) {
    const wish = new Map(layer.map((slot) => [slot, wishOf(slot, isDownwards)]));
    layer.sort((a, b) => (wish.get(a) ?? 0) - (wish.get(b) ?? 0));
    let edge = -Infinity;
    for (const slot of layer) {
      slot.x = Math.max(wish.get(slot) ?? 0, edge + slot.width / 2);
      edge = slot.x + slot.width / 2 + gap;
    }
    // Pushed apart to the right only: the layer as a whole goes back to where it wanted to be.
    const shift = mean(layer.map((slot) => (wish.get(slot) ?? 0) - slot.x));
    for (const slot of layer) slot.x += shift;
  }
}

function wishOf(slot: Slot, isDownwards: boolean): number {
  const neighbours = isDownwards ? slot.up : slot.down;
  return neighbours.length === 0 ? slot.x : mean(neighbours.map(({ x }) => x));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

function required<Value>(map: ReadonlyMap<string, Value>, key: string): Value {
  const value = map.get(key);
  if (value === undefined) throw new TypeError(`There is no node "${key}"`);
  return value;
}
