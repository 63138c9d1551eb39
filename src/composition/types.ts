import type { JobError } from "../errors/index.ts";
import type { ActionManifest } from "../protocol/index.ts";

/**
 * Binding marker: this value comes from elsewhere when the node is about to run.
 *
 * `$ref` is `node` or `node.field.path` for an upstream result, `$item` or `$item.path` and
 * `$index` inside a `for_each` node, `$input.name` for a declared input. Numeric path segments
 * index lists. A value that must hold `{"$ref": …}` literally is written `{"$literal": …}`; a
 * `$ref` that begins with `#` (a JSON Schema's pointer) is plain data.
 */
export interface OutputRef {
  readonly $ref: string;
  /** A source that a `when` skipped gives null instead of skipping this node too. */
  readonly optional?: boolean | undefined;
}

/** What a condition compares: a literal or a marker. */
export type Condition =
  | boolean
  | OutputRef
  | { readonly not: Condition }
  | { readonly all: readonly Condition[] }
  | { readonly any: readonly Condition[] }
  | Comparison;

/** `value` against each of the other members; at least one. */
export interface Comparison {
  readonly value: unknown;
  readonly equals?: unknown;
  readonly not_equals?: unknown;
  readonly less_than?: unknown;
  readonly at_most?: unknown;
  readonly greater_than?: unknown;
  readonly at_least?: unknown;
  readonly in?: unknown;
}

export const INPUT_TYPES = ["string", "number", "integer", "boolean", "array", "object"] as const;
export type InputType = (typeof INPUT_TYPES)[number];

/** A value that the caller gives when the composition is submitted. */
export interface InputDeclaration {
  readonly type: InputType;
  readonly description?: string | undefined;
  /** Absent: the caller must give it. */
  readonly default?: unknown;
  readonly options?: readonly unknown[] | undefined;
}

/** A capability instance that the composition wants loaded. */
export interface InstanceDeclaration {
  readonly capability: string;
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  readonly maxConcurrentRequests?: number | undefined;
}

/** One call of one instance. */
export interface CompositionNode {
  readonly id: string;
  /** Id of the capability instance that is called. */
  readonly instance: string;
  /** The action to call; absent together with `task` means the default action. */
  readonly action?: string | undefined;
  readonly task?: string | undefined;
  readonly method?: string | undefined;
  /** Values, with {@link OutputRef} markers at any depth. */
  readonly kwargs: Readonly<Record<string, unknown>>;
  /** Flags of the call's envelope; no markers. */
  readonly control: Readonly<Record<string, unknown>>;
  /** 0 inherits the composition's. */
  readonly priority: number;
  readonly timeoutMs?: number | undefined;
  readonly retries?: number | undefined;
  readonly cache: boolean;
  readonly when?: Condition | undefined;
  /** A marker that gives a list, or the list itself: one call for each item. */
  readonly forEach?: OutputRef | readonly unknown[] | undefined;
}

/** A static DAG of calls, submitted as one unit. */
export interface Composition {
  readonly name?: string | undefined;
  readonly nodes: readonly CompositionNode[];
  /** Halt what has not started at the first failure. */
  readonly failFast: boolean;
  readonly priority: number;
  readonly runId?: string | undefined;
  readonly actor?: string | undefined;
  readonly inputs: Readonly<Record<string, InputDeclaration>>;
  readonly instances: Readonly<Record<string, InstanceDeclaration>>;
}

export const NODE_STATES = [
  "pending",
  "running",
  "completed",
  "failed",
  "cancelled",
  "skipped",
] as const;
export type NodeState = (typeof NODE_STATES)[number];
export type TerminalNodeState = Exclude<NodeState, "pending" | "running">;
export type ItemState = Exclude<NodeState, "skipped">;
export type RunStatus = "running" | "completed" | "failed" | "cancelled";

/** How a member job ended. */
export type NodeOutcome =
  | { readonly state: "completed"; readonly result: unknown }
  | { readonly state: "failed" | "cancelled"; readonly error: JobError | undefined };

/** Why a node never ran: its own or an upstream `when`, or something upstream that failed. */
export type SkipCause = "when" | "upstream";

/** Live state of one item of a `for_each` node. */
export interface ItemRun {
  state: ItemState;
  jobId: string | undefined;
  result: unknown;
  error: JobError | undefined;
}

/** Live state of one node. */
export interface NodeRun {
  readonly id: string;
  state: NodeState;
  jobId: string | undefined;
  result: unknown;
  error: JobError | undefined;
  skipCause: SkipCause | undefined;
  /** Set when a `for_each` node was expanded. */
  items: ForEachRun | undefined;
}

/** Live state of an expanded `for_each`. */
export interface ForEachRun {
  readonly values: readonly unknown[];
  readonly runs: readonly ItemRun[];
  /** How many items are in each state. */
  readonly tally: Record<ItemState, number>;
}

/**
 * A composition being run. The caller owns it; the functions of this folder change it in place, so
 * that one step costs as much as the edges it touches.
 */
export interface CompositionRun {
  readonly id: string;
  readonly composition: Composition;
  readonly nodes: ReadonlyMap<string, CompositionNode>;
  /** Node id to the nodes it needs. */
  readonly dependencies: ReadonlyMap<string, ReadonlySet<string>>;
  /** Node id to the nodes that need it. */
  readonly dependents: ReadonlyMap<string, readonly string[]>;
  /** Node id to those of its dependencies that it can do without. */
  readonly optional: ReadonlyMap<string, ReadonlySet<string>>;
  readonly nodeRuns: ReadonlyMap<string, NodeRun>;
  /** Pending nodes whose inputs all exist, in the order they became ready. */
  readonly ready: Set<string>;
  /** Node id to the number of needed nodes that are not terminal. */
  readonly waitingFor: Map<string, number>;
  /** How many nodes are in each state. */
  readonly tally: Record<NodeState, number>;
  status: RunStatus;
  /** The user asked to cancel; housekeeping after a failure does not set it. */
  cancelRequested: boolean;
}

/** What one outcome changed. */
export interface Advance {
  /** Nodes that may start now. */
  readonly ready: readonly string[];
  /** Nodes that will never run. */
  readonly skipped: readonly string[];
}

/** What is wrong with a composition, and where. */
export interface CompositionIssue {
  /** Node id; absent when it is about the composition itself. */
  readonly node?: string | undefined;
  /** Dotted path inside the node or the composition. */
  readonly path: string;
  readonly message: string;
}

/** What validation asks about an instance that a node names. */
export interface InstanceSurface {
  readonly capability: string;
  readonly enabled: boolean;
  /** Absent: the worker does not say (one of the original); any action passes. */
  readonly actions?: Readonly<Record<string, ActionManifest>> | undefined;
  /** Task name to its methods. Absent: the worker does not say. */
  readonly tasks?: Readonly<Record<string, readonly string[]>> | undefined;
}

/** What the host knows that the composition does not say. */
export interface CompositionLookup {
  /** Undefined: there is no such capability or instance. */
  instance(id: string, declaration: InstanceDeclaration | undefined): InstanceSurface | undefined;
  /** What there is, for a suggestion where a name is misspelt. */
  readonly names?: Iterable<string> | undefined;
}
