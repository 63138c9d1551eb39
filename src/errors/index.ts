export { CjmError } from "./cjm-error.ts";
export type { CjmErrorOptions, ResourceShortfall } from "./cjm-error.ts";
export { ERROR_CATEGORIES, ERROR_CODES } from "./codes.ts";
export type { ErrorCategory, ErrorCode } from "./codes.ts";
export { unwritable } from "./unwritable.ts";
export { fromJobError, toError, toJobError } from "./job-error.ts";
export type { JobError, JobErrorContext, TracebackPolicy } from "./job-error.ts";
