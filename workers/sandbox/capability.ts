import { CjmError, defineAction, defineCapability, z } from "cjm-substrate/worker";
import { runAction } from "./run-action.ts";
import { limitsSchema, runInputSchema, runOutputSchema } from "./schemas.ts";
import { Workbench } from "./workbench.ts";

const configSchema = z.strictObject({
  python: z.string().default("python3").describe("Python for guests: a path or a name on PATH."),
  node: z.string().default(process.execPath).describe("Node for guests: a path or a name on PATH."),
  bash: z.string().default("bash").describe("bash for guests: a path or a name on PATH."),
  default_limits: limitsSchema.default({}).describe("Limits of a run that names none."),
  cgroup_parent: z
    .string()
    .optional()
    .describe("A cgroup v2 folder delegated to this worker, for memory and process limits."),
});

let workbench: Workbench | undefined;

function ready(): Workbench {
  if (workbench === undefined)
    throw new CjmError("CAPABILITY_ERROR", "The sandbox is not initialized");
  return workbench;
}

export const sandbox = defineCapability({
  name: "sandbox",
  version: "0.1.0",
  description: "Runs untrusted code in a jail and says exactly what happened.",
  config: configSchema,
  maxConcurrentRequests: 4,
  resources: { platforms: ["linux-x64", "linux-arm64"] },

  async initialize({ python, node, bash, default_limits: defaultLimits, cgroup_parent }) {
    workbench?.[Symbol.dispose]();
    workbench = await Workbench.open({
      interpreters: { python, node, bash },
      defaultLimits,
      cgroupParent: cgroup_parent,
    });
  },

  cleanup() {
    workbench?.[Symbol.dispose]();
    workbench = undefined;
  },

  actions: {
    run: defineAction({
      description: "Runs one program in a jail of its own.",
      default: true,
      input: runInputSchema,
      output: runOutputSchema,
      handler: (input, call) => runAction(ready(), input, call),
    }),
  },
});
