export type * from "./port.ts";
export type * from "./records.ts";
export { COMPOSITION_STATUSES, JOB_STATUSES, STORED_NODE_STATES, WHOLE_NODE } from "./records.ts";
