export { z } from "zod";
export { CjmError } from "../errors/index.ts";
export { dirRefSchema, fileRefSchema } from "../protocol/references.ts";
export type { DirRef, FileRef } from "../protocol/references.ts";
export { createWorkerApp } from "./app.ts";
export type { WorkerApp } from "./app.ts";
export { cacheDirForConfig, listCacheEntries, pruneCacheForInput } from "./cache-paths.ts";
export type { CacheFolderOptions, CacheSubject } from "./cache-paths.ts";
export { defineAction, defineCapability, defineTaskAdapter } from "./capability.ts";
export type {
  Action,
  Call,
  Capability,
  ConfigOption,
  FieldOptions,
  MemoryPeak,
  ReleaseReply,
  StreamingAction,
  TaskAdapter,
  TaskMethod,
  UnaryAction,
  WorkerContext,
  WorkerLogger,
} from "./capability.ts";
export { currentCall } from "./current-call.ts";
export { dirRef, fileRef } from "./file-ref.ts";
export { hashInput } from "./input-hash.ts";
export type { HashInputOptions } from "./input-hash.ts";
export type { RuntimeOptions } from "./runtime.ts";
export { serve } from "./serve.ts";
