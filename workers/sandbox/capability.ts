import { join } from "node:path";
import { CjmError, defineAction, defineCapability, z } from "cjm-substrate/worker";
import { casesAction } from "./cases-action.ts";
import { casesInputSchema, casesOutputSchema } from "./cases-schema.ts";
import { probeAction, probeOutputSchema } from "./probe-action.ts";
import { runAction } from "./run-action.ts";
import { limitsSchema, runInputSchema, runOutputSchema } from "./schemas.ts";
import { testsAction } from "./tests-action.ts";
import { testsInputSchema, testsOutputSchema } from "./tests-schema.ts";
import { KEEP_READY_MS, Workbench } from "./workbench.ts";

const configSchema = z.strictObject({
  python: z.string().default("python3").describe("Python for guests: a path or a name on PATH."),
  node: z
    .string()
    .optional()
    .describe(
      "Node for guests: a path or a name on PATH. Without it, the Node that runs this worker.",
    ),
  bash: z.string().default("bash").describe("bash for guests: a path or a name on PATH."),
  default_limits: limitsSchema.default({}).describe("Limits of a run that names none."),
  packages: z
    .strictObject({
      python: z.array(z.string()).default([]),
      node: z.array(z.string()).default([]),
    })
    .prefault({})
    .describe("Folders of installed packages that guests may import from, read-only."),
  cgroup_parent: z
    .string()
    .optional()
    .describe("A cgroup v2 folder delegated to this worker, for memory and process limits."),
  keep_ready_ms: z
    .int()
    .min(0)
    .max(60_000)
    .default(KEEP_READY_MS)
    .describe(
      "After two runs of a kind, how long a fresh jail waits for a third. 0: none is set up beforehand.",
    ),
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

  async initialize(config, { dataFolder }) {
    const { python, node = process.execPath, bash } = config;
    await workbench?.[Symbol.asyncDispose]();
    workbench = await Workbench.open({
      interpreters: { python, node, bash },
      defaultLimits: config.default_limits,
      packages: config.packages,
      cgroupParent: config.cgroup_parent,
      keepReadyMs: config.keep_ready_ms,
      workspaceFolder: join(dataFolder, "workspaces"),
    });
  },

  async cleanup() {
    await workbench?.[Symbol.asyncDispose]();
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
    check_cases: defineAction({
      description: "Compares what code computes with what is expected, outside its jail.",
      // A verdict is about the program; one that a program's own chance decides is not to be cached.
      repeatable: true,
      input: casesInputSchema,
      output: casesOutputSchema,
      handler: (input, call) => casesAction(ready(), input, call),
    }),
    run_tests: defineAction({
      description: "Runs unittest, pytest or node:test tests beside the code they test.",
      input: testsInputSchema,
      output: testsOutputSchema,
      handler: (input, call) => testsAction(ready(), input, call),
    }),
    probe: defineAction({
      description: "Which isolation there is on this machine, and why not more.",
      input: z.strictObject({}),
      output: probeOutputSchema,
      handler: () => probeAction(ready()),
    }),
  },
});
