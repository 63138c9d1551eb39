import { compact } from "../util/compact.ts";
import { configChange, parseConfig } from "./config.ts";
import { parseRequest } from "./requests.ts";
import type { WorkerRuntime } from "./runtime.ts";

/** The answer of a life-cycle endpoint. */
export type StatusReply = { readonly status: string } & Readonly<Record<string, unknown>>;

/** A request to a hook that may take long; `signal` is the life of its connection. */
export interface HookRequest {
  readonly body: unknown;
  readonly signal: AbortSignal;
}

const NOT_SUPPORTED: StatusReply = { status: "not_supported" };

export async function initialize(
  runtime: WorkerRuntime,
  { body, signal }: HookRequest,
): Promise<StatusReply> {
  const config = await parseConfig(runtime.capability, body);
  await apply(runtime, config, signal);
  return { status: "ok" };
}

/** Fires the releases of the fields that changed, then applies the new config. */
export async function reconfigure(
  runtime: WorkerRuntime,
  { body, signal }: HookRequest,
): Promise<StatusReply> {
  const { capability } = runtime;
  const request = await parseRequest("/reconfigure", body, (wire) => wire.reconfigureRequestSchema);
  const config = await parseConfig(capability, request.new_config);
  const { changed, triggers } = configChange(
    capability.config,
    runtime.config ?? request.old_config,
    config,
  );
  for (const trigger of triggers) await capability.release?.[trigger]?.();
  await apply(runtime, config, signal);
  return { status: "reconfigured", changed, released: triggers };
}

async function apply(
  runtime: WorkerRuntime,
  config: Record<string, unknown>,
  signal: AbortSignal,
): Promise<void> {
  try {
    await runtime.capability.initialize?.(config, runtime.hookContext(signal));
  } finally {
    runtime.progress.finish(undefined);
  }
  runtime.config = config;
  runtime.cleaning = undefined;
}

export async function prefetch(runtime: WorkerRuntime, signal: AbortSignal): Promise<StatusReply> {
  const { capability } = runtime;
  if (capability.prefetch === undefined) return NOT_SUPPORTED;
  try {
    await capability.prefetch(runtime.hookContext(signal));
  } finally {
    runtime.progress.finish(undefined);
  }
  return { status: "prefetched" };
}

export async function release(runtime: WorkerRuntime, body: unknown): Promise<StatusReply> {
  const { capability } = runtime;
  const { level } = await parseRequest("/release", body, (wire) => wire.releaseRequestSchema);
  if (capability.releaseMemory === undefined) return NOT_SUPPORTED;
  const { held = "", freedMb } = await capability.releaseMemory(level);
  return compact({ status: "released", held, freed_mb: freedMb });
}

export async function enable({ capability }: WorkerRuntime): Promise<StatusReply> {
  if (capability.onEnable === undefined) return NOT_SUPPORTED;
  await capability.onEnable();
  return { status: "enabled" };
}

export async function disable({ capability }: WorkerRuntime): Promise<StatusReply> {
  if (capability.onDisable === undefined) return NOT_SUPPORTED;
  await capability.onDisable();
  return { status: "disabled" };
}

/** Runs the hook once, however often it is asked for: by the host, then by the end. */
export async function cleanup(runtime: WorkerRuntime): Promise<StatusReply> {
  const { capability } = runtime;
  if (capability.cleanup === undefined) return NOT_SUPPORTED;
  runtime.cleaning ??= Promise.resolve(capability.cleanup());
  await runtime.cleaning;
  return { status: "cleaned" };
}

/** The live choices of config fields, with the schema's own names. */
export async function configOptions({ capability }: WorkerRuntime): Promise<object> {
  return (await capability.configOptions?.()) ?? {};
}
