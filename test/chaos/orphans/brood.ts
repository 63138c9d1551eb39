/**
 * A worker with a brood: one descendant of each kind that has ever been left behind somewhere.
 * `CJM_BROOD` names the kinds, separated by spaces; all of them carry `CJM_BROOD_MARK`.
 */
import { spawn, type StdioOptions } from "node:child_process";
import { existsSync } from "node:fs";
import { defineAction, defineCapability, serve, z, type Call } from "cjm-substrate/worker";

const SLEEP = "exec sleep 1000";
const KINDS: Readonly<Record<string, { readonly script: string; readonly stdio?: StdioOptions }>> =
  {
    fork: { script: SLEEP },
    "double-fork": { script: "(sleep 1000 & sleep 1000) & exit 0" },
    setsid: { script: "setsid sleep 1000 & exit 0" },
    "ignore-term": { script: "trap '' TERM INT HUP; while :; do sleep 1; done" },
    stopped: { script: "kill -STOP $$; sleep 1000" },
    "holds-pipes": {
      script: "setsid sleep 1000 & exit 0",
      stdio: ["ignore", "inherit", "inherit"],
    },
    "forks-on": { script: "while :; do (sleep 0.2 &); sleep 0.05; done" },
    "no-environment": { script: "exec env -i sleep 1000" },
  };

const nothing = z.strictObject({});

function hatch(): number {
  const kinds = (process.env["CJM_BROOD"] ?? "fork").split(" ");
  for (const kind of kinds) {
    const { script = SLEEP, stdio = "ignore" } = KINDS[kind] ?? {};
    spawn("sh", ["-c", script], { stdio });
  }
  return kinds.length;
}

async function never(): Promise<never> {
  return await new Promise(() => undefined);
}

await serve(
  defineCapability({
    name: "brood",
    version: "1",
    config: nothing,
    maxConcurrentRequests: 4,
    async initialize() {
      hatch();
      // A moment for each to become what it is; a kill may come before.
      await new Promise((resolve) => setTimeout(resolve, 30));
    },
    async cleanup() {
      if (existsSync(process.env["CJM_BROOD_STUBBORN"] ?? "")) await never();
    },
    actions: {
      hold: defineAction({
        input: nothing,
        output: z.unknown(),
        handler: async (_, call: Call) => {
          call.progress(0, "holding");
          return await never();
        },
      }),
      freeze: defineAction({
        input: nothing,
        output: z.unknown(),
        handler: () => process.kill(process.pid, "SIGSTOP"),
      }),
    },
  }),
);
if (process.env["CJM_BROOD_STUBBORN"] !== undefined) {
  process.removeAllListeners("SIGTERM").on("SIGTERM", () => undefined);
}
