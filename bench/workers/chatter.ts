/** Logs as fast as it can, or at a rate. */
import { setTimeout as delay, setImmediate as turn } from "node:timers/promises";
import { defineCapability, serve, z } from "cjm-substrate/worker";

const LINES_A_TURN = 500;

await serve(
  defineCapability({
    name: "chatter",
    version: "1.0.0",
    config: z.object({}),
    actions: {
      talk: {
        input: z.object({ lines: z.int().positive(), per_second: z.int().nonnegative() }),
        output: z.null(),
        handler: async ({ lines, per_second: perSecond }, call) => {
          const start = performance.now();
          for (let line = 0; line < lines; line += 1) {
            call.log.info(`line ${line} of a tool that says much about what it does`);
            if (line % LINES_A_TURN !== LINES_A_TURN - 1) continue;
            const aheadMs =
              perSecond === 0 ? 0 : start + (line / perSecond) * 1_000 - performance.now();
            await (aheadMs > 1 ? delay(aheadMs) : turn());
          }
          return null;
        },
      },
    },
  }),
);
