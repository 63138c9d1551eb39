import type {
  Composition,
  CompositionNode,
  Condition,
  InputDeclaration,
  InstanceDeclaration,
  OutputRef,
} from "./types.ts";

/** A node as a program writes it; everything but the capability has a default. */
export interface NodeSpec {
  /** Id of the capability instance to call; the capability's name unless declared otherwise. */
  readonly capability: string;
  /** @default the capability's default action */
  readonly action?: string;
  /** Calls a method of a task adapter instead of an action. */
  readonly task?: string;
  readonly method?: string;
  /** Values, with markers (`ref`, `item`, `input`) at any depth. @default {} */
  readonly kwargs?: Readonly<Record<string, unknown>>;
  /** Flags of this call, such as `force`. @default {} */
  readonly control?: Readonly<Record<string, unknown>>;
  /** @default 0, the composition's priority */
  readonly priority?: number;
  readonly timeoutMs?: number;
  /** @default the queue's `max_retries` */
  readonly retries?: number;
  /** Use an earlier result of the same code, configuration and inputs. @default false */
  readonly cache?: boolean;
  /** Skips the node, and what needs it, unless this holds. */
  readonly when?: Condition;
  /** One call for each member of this list. */
  readonly forEach?: OutputRef | readonly unknown[];
}

export interface CompositionOptions {
  readonly name?: string;
  /** Start nothing new after the first failure. @default true */
  readonly failFast?: boolean;
  /** @default 0 */
  readonly priority?: number;
  readonly runId?: string;
  readonly actor?: string;
  readonly inputs?: Readonly<Record<string, InputDeclaration>>;
  readonly instances?: Readonly<Record<string, InstanceDeclaration>>;
}

/**
 * A composition from nodes by id. Nothing is checked here: submitting it reports every problem at
 * once.
 */
export function composition(
  nodes: Readonly<Record<string, NodeSpec>>,
  options: CompositionOptions = {},
): Composition {
  return {
    failFast: true,
    priority: 0,
    inputs: {},
    instances: {},
    ...options,
    nodes: Object.entries(nodes).map(([id, spec]) => toNode(id, spec)),
  };
}

function toNode(id: string, { capability, ...spec }: NodeSpec): CompositionNode {
  return { kwargs: {}, control: {}, priority: 0, cache: false, ...spec, id, instance: capability };
}
