import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { isRecord } from "../util/record.ts";
import type { Capability, TaskAdapter } from "./capability.ts";
import type { FrameSink } from "./control-stream.ts";
import { createLogger } from "./logger.ts";

/**
 * Loads the task adapters the host names, `module:exportName` each, separated by commas; modules
 * are found as `require` finds them from the worker's entry file.
 *
 * One that does not load is an error in the log and a 404 when it is called, not a dead worker.
 */
export async function bindAdapters(
  capability: Capability,
  specs: string,
  sink: FrameSink,
): Promise<TaskAdapter[]> {
  const log = createLogger({ sink, name: capability.name, level: "info", jobId: () => undefined });
  const bound: TaskAdapter[] = [];
  for (const spec of specs.split(",").filter((part) => part !== "")) {
    try {
      bound.push(await loadAdapter(capability, spec));
    } catch (error) {
      log.error(`task adapter ${spec} was not bound`, error);
    }
  }
  return bound;
}

async function loadAdapter(capability: Capability, spec: string): Promise<TaskAdapter> {
  const [, specifier = "", exportName = ""] = /^(.+):([^:]+)$/u.exec(spec) ?? [];
  const entry = process.argv[1] ?? resolve("worker.js");
  const path = createRequire(entry).resolve(specifier);
  const module: unknown = await import(pathToFileURL(path).href);
  const found = isRecord(module) ? module[exportName] : undefined;
  if (!isTaskAdapter(found))
    throw new TypeError(`${exportName} of ${specifier} is no task adapter`);
  const missing = (found.requires ?? []).filter((name) => !Object.hasOwn(capability.actions, name));
  if (missing.length > 0) throw new TypeError(`${capability.name} lacks ${missing.join(", ")}`);
  return found;
}

function isTaskAdapter(value: unknown): value is TaskAdapter {
  return isRecord(value) && typeof value["task"] === "string" && isRecord(value["methods"]);
}
