/** Logs as fast as it can. */
import { defineCapability, serve, z } from "cjm-substrate/worker";

await serve(
  defineCapability({
    name: "chatter",
    version: "1.0.0",
    config: z.object({}),
    actions: {
      talk: {
        input: z.object({ lines: z.int().positive() }),
        output: z.null(),
        handler: async ({ lines }, call) => {
          for (let line = 0; line < lines; line += 1) {
            call.log.info(`line ${line} of a tool that says much about what it does`);
            if (line % 500 === 499) {
              await new Promise<void>((resolve): void => {
                setImmediate(resolve);
              });
            }
          }
          return null;
        },
      },
    },
  }),
);
