export {
  evaluateWhen,
  resolveForEach,
  resolveKwargs,
  scopeOf,
  type BindingScope,
  type Upstream,
} from "./binding.ts";
export { composition, type CompositionOptions, type NodeSpec } from "./builder.ts";
export { compositionFileSchema, parseCompositionFile } from "./file.ts";
export {
  cancelPendingItems,
  expandForEach,
  MAX_ITEMS,
  pendingItemIndexes,
  recordItemResult,
  recordItemStarted,
  type ItemAddress,
  type ItemAdvance,
  type RestoredItem,
} from "./for-each.ts";
export { dependencies, type Dependencies } from "./graph.ts";
export { bindInputs, parseInputText } from "./inputs.ts";
export { placePaths, type PathSchemas, type PlacedDocument } from "./paths.ts";
export {
  input,
  item,
  itemIndex,
  ref,
  type FoundRef,
  type RefOptions,
  type RefTarget,
} from "./refs.ts";
export {
  allTerminal,
  cancelPending,
  deriveTerminalStatus,
  newRun,
  readyNodes,
  recordResult,
  recordSkipped,
  recordStarted,
  requireNode,
  restoreRun,
  resultsByNode,
  type RestoredNode,
} from "./run.ts";
export { type SchemaIssue } from "./schema-check.ts";
export { parseComposition } from "./stored.ts";
export type * from "./types.ts";
export { actionOf, findCompositionIssues, validateComposition } from "./validate.ts";
