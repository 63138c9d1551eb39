export { z } from "zod";
export { CjmError } from "../errors/index.ts";
export type { DirRef, FileRef } from "../protocol/index.ts";
export { defineAction, defineCapability, defineTaskAdapter } from "./capability.ts";
export type {
  Action,
  Call,
  Capability,
  ConfigOption,
  FieldOptions,
  ReleaseReply,
  StreamingAction,
  TaskAdapter,
  UnaryAction,
  WorkerContext,
  WorkerLogger,
} from "./capability.ts";
