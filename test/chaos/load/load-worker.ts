/** A tool with one action of each way to end: at once, as a stream, never, by death, with an error. */
import { CjmError, defineAction, defineCapability, serve, z } from "cjm-substrate/worker";

const nothing = z.strictObject({});

await serve(
  defineCapability({
    name: "load",
    version: "1",
    config: nothing,
    maxConcurrentRequests: 4,
    actions: {
      add: defineAction({
        input: z.strictObject({ a: z.number(), b: z.number() }),
        output: z.number(),
        handler: ({ a, b }, call) => {
          call.log.info(`adding ${a} and ${b}`);
          call.progress(0.5, "half");
          call.usage({ additions: 1 });
          return a + b;
        },
      }),
      count: defineAction({
        input: z.strictObject({ chunks: z.int() }),
        output: z.int(),
        streaming: true,
        async *handler({ chunks }) {
          for (let n = 0; n < chunks; n += 1) yield await Promise.resolve(n);
        },
      }),
      hold: defineAction({
        input: nothing,
        output: z.null(),
        handler: async (_, { signal, progress }) => {
          progress(0, "holding");
          return await new Promise<null>((_resolve, reject) => {
            signal.addEventListener("abort", () => {
              reject(signal.reason as Error);
            });
          });
        },
      }),
      die: defineAction({
        input: nothing,
        output: z.null(),
        handler: () => {
          process.kill(process.pid, "SIGKILL");
          return null;
        },
      }),
      fail: defineAction({
        input: nothing,
        output: z.null(),
        handler: () => {
          throw new CjmError("CAPABILITY_INPUT", "as it was told");
        },
      }),
      large: defineAction({
        input: z.strictObject({ bytes: z.int() }),
        output: z.string(),
        handler: ({ bytes }) => "x".repeat(bytes),
      }),
    },
  }),
);
