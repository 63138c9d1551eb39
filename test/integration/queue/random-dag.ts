import {
  type Composition,
  composition,
  item,
  itemIndex,
  type NodeSpec,
  ref,
} from "../../../src/composition/index.ts";
import { CjmError } from "../../../src/errors/index.ts";
import { type FakeCall, untilCancelled } from "../../support/fake-executor.ts";

/** What a call does: `dies` kills its worker the first time, `hangs` waits for a cancel. */
export type Act = "answers" | "fails" | "dies" | "hangs";

/** A node before it has a place in a graph. */
export interface Plan {
  readonly tool: string;
  /** Nodes it uses, by a number that is mapped to an earlier one; `optional`: it can do without. */
  readonly needs: readonly { readonly node: number; readonly optional: boolean }[];
  /** `upstream`: what its first source says. */
  readonly when: "yes" | "no" | "upstream";
  /** Whether it is a `for_each` over a list of its own, or over what its first source gives. */
  readonly each: "single" | "literal" | "upstream";
  /** What it says to a `when` downstream. */
  readonly says: boolean;
  /** How many items it gives to a `for_each`, its own or one downstream. */
  readonly gives: number;
  /** Of the node, or of its items in turn. */
  readonly acts: readonly Act[];
  /** Turns of the event loop that a call takes. */
  readonly turns: number;
}

/** A plan with a place: it uses only earlier nodes, so that the graph has an order. */
export interface PlacedNode extends Omit<Plan, "needs"> {
  readonly id: string;
  /** Source to whether this node can do without it. */
  readonly sources: ReadonlyMap<string, boolean>;
  /** The source that `when: upstream` and `each: upstream` mean. */
  readonly first: string | undefined;
}

export function place(plans: readonly Plan[]): PlacedNode[] {
  return plans.map((plan, index) => {
    const sources = new Map<string, boolean>();
    for (const { node, optional } of index === 0 ? [] : plan.needs) {
      const id = `n${node % index}`;
      sources.set(id, (sources.get(id) ?? true) && optional);
    }
    const [first] = sources.keys();
    if (first === undefined) {
      const each = plan.each === "upstream" ? "literal" : plan.each;
      return {
        ...plan,
        each,
        when: plan.when === "no" ? "no" : "yes",
        id: `n${index}`,
        sources,
        first,
      };
    }
    // The marker in `when` or `for_each` has no way to do without.
    if (plan.when === "upstream" || plan.each === "upstream") sources.set(first, false);
    return { ...plan, id: `n${index}`, sources, first };
  });
}

/** The composition of placed nodes. Every call gets what its sources gave under `needs`. */
export function compose(nodes: readonly PlacedNode[], failFast: boolean): Composition {
  return composition(Object.fromEntries(nodes.map((node) => [node.id, specOf(node)])), {
    failFast,
  });
}

function specOf({ id, tool, sources, first = "", ...node }: PlacedNode): NodeSpec {
  const needs = Object.fromEntries(
    [...sources].map(([source, optional]) => [source, ref(source, { optional })]),
  );
  const spec = { capability: tool, retries: 1 };
  const when = node.when === "upstream" ? ref(first, "says") : node.when === "yes";
  if (node.each === "single") return { ...spec, when, kwargs: { id, needs } };
  const forEach = node.each === "upstream" ? ref(first, "gives") : listOf(node);
  return { ...spec, when, forEach, kwargs: { id, needs, item: item(), index: itemIndex() } };
}

function listOf({ gives }: Pick<Plan, "gives">): number[] {
  return Array.from({ length: gives }, (_, index) => index);
}

/** What a call of a node answers. */
export interface Answer {
  readonly id: string;
  readonly index: number;
  readonly says: boolean;
  readonly gives: readonly number[];
}

export const SINGLE = -1;

/**
 * The workers of one composition. Outside the product, it notes what was answered, so that inputs
 * that come too early, differ or are asked for again are found.
 */
export class DagWorkers {
  /** Everything that must not have happened. */
  readonly wrong: string[] = [];
  readonly #nodes: ReadonlyMap<string, PlacedNode>;
  readonly #answers = new Map<string, Answer>();
  readonly #dead = new Set<string>();

  constructor(nodes: readonly PlacedNode[]) {
    this.#nodes = new Map(nodes.map((node) => [node.id, node]));
  }

  /** @param onHang asked to cancel the job of a call that hangs. */
  async run(call: FakeCall, onHang: (jobId: string) => void): Promise<Answer> {
    const {
      id,
      index = SINGLE,
      needs,
    } = call.kwargs as {
      id: string;
      index?: number;
      needs: Readonly<Record<string, unknown>>;
    };
    const node = this.#nodes.get(id);
    if (node === undefined) throw new TypeError(`No node is called ${id}`);
    const key = `${id}/${index}`;
    if (this.#answers.has(key)) this.wrong.push(`${key} was called after it had answered`);
    for (const [source, value] of Object.entries(needs)) this.#checkInput(node, source, value);
    for (let turn = 0; turn < node.turns; turn += 1) await nextTurn();
    const act = actOf(node, index);
    if (act === "fails") throw new CjmError("CAPABILITY_ERROR", "told to fail");
    if (act === "dies" && !this.#dead.has(key)) {
      this.#dead.add(key);
      throw new CjmError("WORKER_EXITED", "told to die");
    }
    if (act === "hangs") {
      onHang(call.jobId);
      await untilCancelled(call);
    }
    return { id, index, says: node.says, gives: listOf(node) };
  }

  /** A worker's answer has reached the queue: from now on it may be used. */
  answered(answer: Answer): void {
    this.#answers.set(`${answer.id}/${answer.index}`, answer);
  }

  #checkInput(node: PlacedNode, source: string, value: unknown): void {
    const isFine = Array.isArray(value)
      ? value.every((one, index) => this.#isAnswer(source, index, one))
      : (value === null && node.sources.get(source) === true) ||
        this.#isAnswer(source, SINGLE, value);
    if (!isFine) {
      this.wrong.push(`${node.id} was called with ${JSON.stringify(value)} of ${source}`);
    }
  }

  #isAnswer(source: string, index: number, value: unknown): boolean {
    if (typeof value === "object" && value !== null && "__error__" in value)
      return index !== SINGLE;
    const answer = this.#answers.get(`${source}/${index}`);
    return answer !== undefined && JSON.stringify(value) === JSON.stringify(answer);
  }
}

/** What the call of a node, or of one of its items, does. */
export function actOf({ acts }: Pick<Plan, "acts">, index: number): Act {
  return acts[Math.max(0, index) % acts.length] ?? "answers";
}

async function nextTurn(): Promise<void> {
  await new Promise<void>((resolve) => {
    setImmediate(resolve);
  });
}
