import { z } from "zod";
import type { StructuralSurface } from "../protocol/index.ts";
import { PROTOCOL_VERSION } from "../protocol/limits.ts";
import { compact } from "../util/compact.ts";
import { defaultAction, propertyOrder } from "./actions.ts";
import type { Action, Capability } from "./capability.ts";
import { strict } from "./validation.ts";

type JsonObject = Record<string, unknown>;

/** The config as JSON Schema, draft 2020-12, as a caller may write it. */
export function configSchema(capability: Capability): JsonObject {
  return toJsonSchema(strict(capability.config), "input");
}

function toJsonSchema(schema: z.ZodType, io: "input" | "output"): JsonObject {
  return {
    ...z.toJSONSchema(schema, {
      target: "draft-2020-12",
      io,
      unrepresentable: "any",
      override: ({ jsonSchema }) => {
        const trigger = jsonSchema["reloadTrigger"];
        if (trigger === undefined) return;
        jsonSchema["reload_trigger"] = trigger;
        delete jsonSchema["reloadTrigger"];
      },
    }),
  };
}

/** The public methods, sorted by name: what drift is judged by and adapters are matched against. */
export function structuralSurface(capability: Capability): StructuralSurface {
  const methods = Object.entries(capability.actions).map(([name, { input }]) => {
    const params = [...propertyOrder(input)];
    return { name, signature: `(${params.join(", ")})`, params };
  });
  const monitor = capability.monitor === undefined ? [] : ["get_system_status", "list_processes"];
  const all = [...methods, ...monitor.map((name) => ({ name, signature: "()", params: [] }))];
  return {
    methods: all.sort((a, b) => (a.name < b.name ? -1 : 1)),
    properties: [],
    attributes: {},
  };
}

/** The `code` section of the manifest: everything the capability says about itself. */
export function codeSection(capability: Capability): JsonObject {
  return compact({
    name: capability.name,
    version: capability.version,
    description: capability.description ?? "",
    sdk: "cjm",
    protocol: PROTOCOL_VERSION,
    actions: actionSections(capability),
    tasks: Object.fromEntries(
      (capability.tasks ?? []).map(({ task, methods }) => [task, Object.keys(methods)]),
    ),
    config_schema: configSchema(capability),
    worker_env: [...(capability.workerEnv ?? [])],
    structural_surface: structuralSurface(capability),
    max_concurrent_requests: capability.maxConcurrentRequests ?? 1,
    resources: capability.resources,
    monitor: capability.monitor !== undefined,
  });
}

function actionSections(capability: Capability): JsonObject {
  const byDefault = defaultAction(capability);
  return Object.fromEntries(
    Object.entries(capability.actions).map(([name, action]) => [
      name,
      actionSection(action, name === byDefault),
    ]),
  );
}

function actionSection(action: Action, isDefault: boolean): JsonObject {
  return {
    description: action.description ?? "",
    input_schema: toJsonSchema(strict(action.input), "input"),
    output_schema: toJsonSchema(action.output, "output"),
    default: isDefault,
    streaming: action.streaming === true,
    repeatable: action.repeatable ?? false,
  };
}
