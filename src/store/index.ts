export type { RemovedBodies } from "./body-retention.ts";
export { RESOURCES_LOGGER } from "./diagnostics-records.ts";
export { removeBodies } from "./body-retention.ts";
export { DiagnosticsReader } from "./diagnostics-reader.ts";
export type {
  ChunkFilter,
  DiagnosticRecord,
  FrameLines,
  OutputLines,
  RecordFilter,
  Retention,
  RetentionResult,
  StoredChunk,
  StoredRecord,
  StreamChunk,
} from "./diagnostics-records.ts";
export { DiagnosticsStore } from "./diagnostics-store.ts";
export type { DiagnosticsStoreOptions } from "./diagnostics-store.ts";
export { acquireHostLock, readHostInfo } from "./host-lock.ts";
export type { HostInfo, HostLock } from "./host-lock.ts";
export { openJournalDatabase, openJournalReader } from "./journal-database.ts";
export { newestStarts } from "./newest-starts.ts";
export type { JournalDatabase, JournalDatabaseOptions } from "./journal-database.ts";
export type * from "./port.ts";
export type * from "./records.ts";
export { COMPOSITION_STATUSES, JOB_STATUSES, STORED_NODE_STATES, WHOLE_NODE } from "./records.ts";
export { createRedactor } from "./redact.ts";
export { INLINE_RESULT_BYTES, ResultFiles } from "./result-files.ts";
export { SecretStore } from "./secret-store.ts";
export type { SecretAddress } from "./secret-store.ts";
