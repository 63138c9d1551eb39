import { CjmError, defineAction, defineCapability } from "cjm-substrate/worker";
import { mergeAdapters } from "./actions/merge.ts";
import { mergeModels } from "./actions/merge-models.ts";
import { inspectAdapter, planMerge } from "./actions/plan.ts";
import { configSchema, type MergerConfig } from "./config.ts";
import { toFaultData } from "./fault.ts";
import {
  inspectInputSchema,
  inspectOutputSchema,
  mergeInputSchema,
  mergeModelsInputSchema,
  mergeModelsOutputSchema,
  mergeOutputSchema,
  planOutputSchema,
  shortfallSchema,
} from "./schemas.ts";
import { VERSION } from "./version.ts";

/** Runs a handler so that every failure leaves it as the error the substrate knows. */
async function guarded<Result>(run: () => Promise<Result> | Result): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof CjmError) throw error;
    const { code, reason, message, details } = toFaultData(error);
    const { shortfall } = shortfallSchema.parse(details);
    throw new CjmError(code, message, {
      cause: error,
      details: { reason, ...details },
      ...(shortfall === undefined ? {} : { resourceShortfall: shortfall }),
    });
  }
}

const merge = defineAction<typeof mergeInputSchema, typeof mergeOutputSchema, MergerConfig>({
  description: "Merges LoRA adapters of one base model into one, without the base model.",
  default: true,
  repeatable: true,
  input: mergeInputSchema,
  output: mergeOutputSchema,
  handler: (input, call) => guarded(() => mergeAdapters(input, call)),
});

const plan = defineAction<typeof mergeInputSchema, typeof planOutputSchema, MergerConfig>({
  description: "Says what a merge would do and need, or why it is refused; reads no tensor.",
  input: mergeInputSchema,
  output: planOutputSchema,
  handler: (input, call) => guarded(() => planMerge(input, call)),
});

const models = defineAction<
  typeof mergeModelsInputSchema,
  typeof mergeModelsOutputSchema,
  MergerConfig
>({
  description: "Merges full checkpoints tensor by tensor; continues where a killed call stopped.",
  repeatable: true,
  input: mergeModelsInputSchema,
  output: mergeModelsOutputSchema,
  handler: (input, call) => guarded(() => mergeModels(input, call)),
});

const inspect = defineAction<typeof inspectInputSchema, typeof inspectOutputSchema, MergerConfig>({
  description: "Describes a LoRA adapter and says whether it can be merged.",
  input: inspectInputSchema,
  output: inspectOutputSchema,
  handler: ({ path }) => guarded(() => inspectAdapter(path)),
});

/** TIES, DARE and other merges of LoRA adapters and checkpoints, in plain TypeScript. */
export const capability = defineCapability({
  name: "adapter-merger",
  version: VERSION,
  description: "Merges LoRA adapters and checkpoints: TIES, DARE, DELLA, SLERP, exact linear.",
  config: configSchema,
  actions: { merge, plan, merge_models: models, inspect },
  resources: {
    requires_gpu: false,
    platforms: ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"],
    accelerators: [],
  },
});
