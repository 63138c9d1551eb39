import { z } from "cjm-substrate/worker";
import { COMPATIBILITIES, METHODS } from "./engine/rules.ts";

const hashSchema = z.string().regex(/^sha256:[0-9a-f]{64}$/u, "expected sha256:<64 hex>");

/** A folder by content, as it crosses the wire. */
export const folderRefSchema = z.object({
  __wire__: z.literal("dir.ref"),
  data: z.object({
    path: z.string(),
    sha256: hashSchema,
    files: z.array(z.object({ name: z.string(), size: z.int().nonnegative(), sha256: hashSchema })),
  }),
});

const folderSchema = (what: string): z.ZodUnion<readonly [typeof folderRefSchema, z.ZodString]> =>
  z
    .union([folderRefSchema, z.string().min(1)])
    .meta({ format: "cjm-dir" })
    .describe(what);

const weightSchema = z
  .number()
  .default(1)
  .describe("Factor of this input; a negative one subtracts.");
const densitySchema = z
  .number()
  .optional()
  .describe("Share of entries that survive pruning, 0..1; instead of the common `density`.");

export const adapterInputSchema = z.strictObject({
  path: folderSchema(
    "LoRA adapter: a folder with adapter_model.safetensors and adapter_config.json.",
  ),
  weight: weightSchema,
  density: densitySchema,
});

const overrideSchema = z.strictObject({
  modules: z.string().min(1).describe("Regular expression, searched for in the name of a module."),
  weights: z.array(z.number()).optional().describe("One weight per input for these modules."),
  densities: z.array(z.number()).optional().describe("One density per input for these modules."),
  lambda: z.number().optional().describe("Factor of the result for these modules."),
  rank: z.int().positive().optional().describe("Output rank of these modules."),
});

const commonFields = {
  density: z
    .number()
    .default(0.5)
    .describe("Share of entries that survive pruning, 0..1, where an input names none."),
  lambda: z.number().default(1).describe("Factor of the merged result."),
  seed: z
    .int()
    .nonnegative()
    .default(0)
    .describe("Seed of the random prunes and of the decomposition."),
  majority_sign: z
    .enum(["total", "frequency"])
    .default("total")
    .describe("How signs are elected: by the sum of values or by counting signs."),
  normalize: z
    .boolean()
    .optional()
    .describe(
      "Divide by the weights; absent: as the method is defined (elections divide, sums do not).",
    ),
  rescale: z.boolean().optional().describe("False: what survives a random prune is not scaled up."),
  gamma: z
    .number()
    .min(0)
    .max(1)
    .default(0.01)
    .describe("Breadcrumbs: share of the largest entries to drop."),
  epsilon: z
    .number()
    .min(0)
    .max(0.5)
    .default(0.1)
    .describe("DELLA: half the width of the range of keep probabilities."),
  t: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe("Slerp: 0 is the first input, 1 the second; absent: from the weights."),
  dtype: z
    .enum(["auto", "float32", "float16", "bfloat16"])
    .default("auto")
    .describe("Type of the output's tensors; auto: that of the first input."),
  nonfinite: z
    .enum(["refuse", "propagate"])
    .default("refuse")
    .describe(
      "NaN or infinity in an input: refuse with the tensor's name, or carry on and name it in the report.",
    ),
  threads: z
    .int()
    .min(1)
    .max(64)
    .optional()
    .describe("Merge threads; absent: as configured. Changes no byte."),
} as const;

export const mergeInputSchema = z.strictObject({
  adapters: z
    .array(adapterInputSchema)
    .min(1)
    .max(64)
    .describe("LoRA adapters to merge, in order."),
  method: z.enum(METHODS).default("ties").describe("Merge method."),
  compat: z
    .enum(COMPATIBILITIES)
    .default("none")
    .describe(
      "Reproduce another tool's numbers, its faults included; none: exact merging of deltas.",
    ),
  rank: z
    .int()
    .positive()
    .optional()
    .describe(
      "Output rank; absent: the sum of the inputs' ranks, as far as the matrix has so many.",
    ),
  energy: z
    .number()
    .gt(0)
    .max(1)
    .optional()
    .describe(
      "Smallest rank per module that keeps this share of the squared norm; instead of `rank`.",
    ),
  missing_modules: z
    .enum(["refuse", "zero"])
    .default("refuse")
    .describe(
      "A module that not every adapter has: refuse, or take it as zero where it is missing.",
    ),
  overrides: z
    .array(overrideSchema)
    .max(1000)
    .default([])
    .describe("Other numbers for some modules; the last match wins."),
  ...commonFields,
});
export type MergeInput = z.output<typeof mergeInputSchema>;

const MODEL_METHODS = [
  "linear",
  "slerp",
  "task_arithmetic",
  "ties",
  "dare_linear",
  "dare_ties",
  "della",
  "della_linear",
  "breadcrumbs",
  "breadcrumbs_ties",
] as const;

export const mergeModelsInputSchema = z.strictObject({
  models: z
    .array(
      z.strictObject({
        path: folderSchema(
          "Checkpoint: a folder with model.safetensors, or shards and their index.",
        ),
        weight: weightSchema,
        density: densitySchema,
      }),
    )
    .min(1)
    .max(64)
    .describe("Checkpoints to merge, in order."),
  base: folderSchema("Base checkpoint.")
    .optional()
    .describe(
      "Checkpoint that the others were trained from; every method but linear and slerp needs it.",
    ),
  method: z.enum(MODEL_METHODS).default("ties").describe("Merge method."),
  compat: z
    .enum(["none", "mergekit"])
    .default("none")
    .describe("mergekit: its defaults and its rounding in the checkpoint's dtype."),
  max_shard_mb: z
    .int()
    .min(1)
    .default(5000)
    .describe(
      "Largest file of the output, in megabytes (a single larger tensor makes a larger file).",
    ),
  overrides: z
    .array(overrideSchema.omit({ rank: true }))
    .max(1000)
    .default([])
    .describe("Other numbers for tensors whose name matches; the last match wins."),
  ...commonFields,
});
export type MergeModelsInput = z.output<typeof mergeModelsInputSchema>;

export const inspectInputSchema = z.strictObject({
  path: folderSchema("LoRA adapter to describe."),
});

const countsSchema = z.object({
  modules: z.int().describe("Merged modules."),
  sign_conflict: z
    .number()
    .nullable()
    .describe("Mean over modules of the share of entries whose signs differ."),
  kept_mass: z
    .array(z.number().nullable())
    .describe("Share of the sum of magnitudes that pruning left, per input."),
  energy_kept: z
    .number()
    .nullable()
    .describe("Share of the squared norm of all modules that the output ranks hold."),
  rank_min: z.int().nullable().describe("Smallest output rank."),
  rank_max: z.int().nullable().describe("Largest output rank."),
  non_finite: z
    .array(z.string())
    .describe("Tensors with NaN or infinity that were propagated (the first 100)."),
  notes: z
    .array(z.string())
    .describe("What a reader of the result must know, such as a reproduced fault."),
});

const timingSchema = z.object({
  seconds: z.number().describe("Wall time of this call."),
  input_bytes: z.int().describe("Bytes of all inputs."),
  output_bytes: z.int().describe("Bytes of the weights written."),
  threads: z.int().describe("Merge threads used."),
});

export const mergeOutputSchema = z.object({
  adapter: folderRefSchema.describe(
    "The merged LoRA adapter, with merge_report.json and merge_provenance.json.",
  ),
  recipe_hash: hashSchema.describe(
    "Hash of recipe, inputs and tool version; equal hashes mean equal bytes.",
  ),
  cache_hit: z.boolean().describe("True: an earlier result of the same recipe."),
  report: countsSchema,
  timing: timingSchema,
});

export const mergeModelsOutputSchema = z.object({
  model: folderRefSchema.describe(
    "The merged checkpoint, with merge_report.json and merge_provenance.json.",
  ),
  recipe_hash: hashSchema.describe(
    "Hash of recipe, inputs and tool version; equal hashes mean equal bytes.",
  ),
  cache_hit: z.boolean().describe("True: an earlier result of the same recipe."),
  resumed_shards: z.int().describe("Shards that an interrupted call had completed."),
  report: countsSchema,
  timing: timingSchema,
});

export const planOutputSchema = z.object({
  space: z
    .enum(["cat", "factored", "dense", "tensors"])
    .describe("Form in which the deltas are merged."),
  modules: z.array(
    z.object({
      module: z.string(),
      inputs: z.int(),
      outputs: z.int(),
      ranks: z.array(z.int()),
      rank: z.int(),
    }),
  ),
  output_bytes: z
    .int()
    .describe("Bytes of the weights to be written; an upper bound with `energy`."),
  disk_bytes: z.int().describe("Bytes of disk needed while merging."),
  memory_bytes: z.int().describe("Estimate of the peak memory."),
  disk_free_bytes: z.int().describe("Free bytes where the output goes."),
  notes: z.array(z.string()),
});

export const inspectOutputSchema = z.object({
  base_model: z.string().nullable(),
  rank: z.int(),
  alpha: z.number(),
  rslora: z.boolean(),
  parameters: z.int(),
  bytes: z.int(),
  modules: z.array(
    z.object({
      module: z.string(),
      rank: z.int(),
      inputs: z.int(),
      outputs: z.int(),
      scaling: z.number(),
      dtype: z.string(),
    }),
  ),
});

/** The shortfall that a fault's details may carry. */
export const shortfallSchema = z.looseObject({
  shortfall: z
    .object({
      resource: z.enum(["gpu_vram_mb", "system_ram_mb", "disk_mb"]),
      needed: z.number(),
      available: z.number(),
    })
    .optional(),
});
