// Writes schemas/ from the zod schemas. With --check it writes nothing and fails when one is stale.
import { z } from "zod";
import { JSON_OUTPUTS } from "../src/cli/json-output.ts";
import { capabilitiesFileSchema, cjmConfigSchema } from "../src/config/index.ts";
import {
  adapterManifestSchema,
  cancelRequestSchema,
  dirRefSchema,
  executeRequestSchema,
  fileRefSchema,
  healthSchema,
  helloFrameSchema,
  jobErrorBodySchema,
  manifestSchema,
  reconfigureRequestSchema,
  releaseRequestSchema,
  statsSchema,
  statusReplySchema,
  structuralSurfaceSchema,
  taskRequestSchema,
  workerFrameSchema,
} from "../src/protocol/index.ts";
import { writeGenerated, type Generated } from "./generated.ts";

/** What crosses between host and worker, in both directions. */
const WIRE = {
  hello_frame: helloFrameSchema,
  worker_frame: workerFrameSchema,
  execute_request: executeRequestSchema,
  task_request: taskRequestSchema,
  cancel_request: cancelRequestSchema,
  release_request: releaseRequestSchema,
  reconfigure_request: reconfigureRequestSchema,
  health: healthSchema,
  stats: statsSchema,
  status_reply: statusReplySchema,
  structural_surface: structuralSurfaceSchema,
  job_error_body: jobErrorBodySchema,
  file_ref: fileRefSchema,
  dir_ref: dirRefSchema,
};

const FILES = {
  cjm: cjmConfigSchema,
  capabilities: capabilitiesFileSchema,
  manifest: manifestSchema,
  "adapter-manifest": adapterManifestSchema,
};

function jsonSchema(schema: z.ZodType, io: "input" | "output" = "input"): Record<string, unknown> {
  return { ...z.toJSONSchema(schema, { io, unrepresentable: "any" }) };
}

function file(name: string, content: Record<string, unknown>): Generated {
  return {
    path: `schemas/${name}.schema.json`,
    content: `${JSON.stringify(content, null, 2)}\n`,
  };
}

const wire = Object.entries(WIRE).map(([name, schema]) => {
  const { $schema: _, ...rest } = jsonSchema(schema);
  return [name, rest] as const;
});

const outputs = Object.entries(JSON_OUTPUTS).map(([name, schema]) => {
  const { $schema: _, ...rest } = jsonSchema(schema, "output");
  return [name, rest] as const;
});

await writeGenerated([
  ...Object.entries(FILES).map(([name, schema]) => file(name, jsonSchema(schema))),
  file("wire", {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    description: "Messages between host and worker, version 1 of the worker protocol.",
    $defs: Object.fromEntries(wire),
  }),
  file("cli", {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    description:
      "What each command of cjm-ctl prints with --json; for `logs`, what each line of it is.",
    $defs: Object.fromEntries(outputs),
  }),
]);
