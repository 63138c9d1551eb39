/** The worker of the benchmarks; run compiled, as a product's workers are. */
import { defineCapability, serve, z } from "cjm-substrate/worker";

await serve(
  defineCapability({
    name: "echo",
    version: "1.0.0",
    config: z.object({}),
    actions: {
      echo: {
        input: z.object({ value: z.unknown() }),
        output: z.object({ value: z.unknown() }),
        handler: (input) => input,
      },
    },
  }),
);
