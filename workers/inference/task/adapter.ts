import { defineTaskAdapter, type Call, type z } from "cjm-substrate/worker";
import {
  chatInputSchema,
  countTokensInputSchema,
  countTokensOutputSchema,
  embedInputSchema,
  embedOutputSchema,
  generateInputSchema,
  generationSchema,
  listAdaptersInputSchema,
  listAdaptersOutputSchema,
  loadAdapterInputSchema,
  loadAdapterOutputSchema,
  scoreInputSchema,
  scoreOutputSchema,
  TASK,
  unloadAdapterInputSchema,
  unloadAdapterOutputSchema,
} from "./schemas.ts";

/** A method that is the tool's action of the same name. */
function method<Input extends z.ZodType, Output extends z.ZodType>(
  action: string,
  input: Input,
  output: Output,
): {
  readonly input: Input;
  readonly output: Output;
  readonly handler: (given: z.output<Input>, call: Call) => Promise<z.input<Output>>;
} {
  return {
    input,
    output,
    // The action's own output schema is this one, and the runtime has held it to it.
    handler: async (given, call) => {
      const result = await call.invoke(action, given);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- parsed by `output` right after
      return result as z.input<Output>;
    },
  };
}

/** Task `text-generation`: see docs/text-generation.md. */
export const textGeneration = defineTaskAdapter({
  task: TASK,
  requires: ["generate", "chat", "count_tokens", "load_adapter", "unload_adapter", "list_adapters"],
  methods: {
    generate: method("generate", generateInputSchema, generationSchema),
    chat: method("chat", chatInputSchema, generationSchema),
    embed: method("embed", embedInputSchema, embedOutputSchema),
    score: method("score", scoreInputSchema, scoreOutputSchema),
    count_tokens: method("count_tokens", countTokensInputSchema, countTokensOutputSchema),
    list_adapters: method("list_adapters", listAdaptersInputSchema, listAdaptersOutputSchema),
    load_adapter: method("load_adapter", loadAdapterInputSchema, loadAdapterOutputSchema),
    unload_adapter: method("unload_adapter", unloadAdapterInputSchema, unloadAdapterOutputSchema),
  },
});
