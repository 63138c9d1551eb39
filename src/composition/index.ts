export type * from "./types.ts";
export { INPUT_TYPES, NODE_STATES } from "./types.ts";
