import { availableParallelism } from "node:os";
import {
  defineAction,
  defineCapability,
  z,
  type Action,
  type Capability,
} from "cjm-substrate/worker";
import {
  bestDevice,
  bestDeviceOutput,
  budgetInput,
  budgetOutput,
  computeBudget,
  dtypeInput,
  dtypeOutput,
  resolveDtype,
} from "./budget.ts";
import { configSchema } from "./config.ts";
import { eventSchema, gpuSchema, sampleSchema, SOURCE_NAMES } from "./model.ts";
import { originalProcesses, originalStatus, processOutput } from "./original.ts";
import { readSystem, systemSchema } from "./system.ts";
import { Watchtower } from "./watchtower.ts";

const nothing = z.strictObject({});
const reportOutput = systemSchema.extend({
  source: z.enum(SOURCE_NAMES),
  ts: z.iso.datetime(),
  driver: z.string().nullable(),
  gpus: z.array(gpuSchema),
  notes: z.array(z.string()),
});

/** `hostPid`: the process whose descendants are not foreign. */
export function gpuMonitor(hostPid: number): Capability<typeof configSchema> {
  const tower = new Watchtower(configSchema.parse({}), hostPid);
  return defineCapability({
    name: "gpu-monitor",
    version: "0.1.0",
    description: "GPU, CPU, memory and disk of this machine, per process where the driver says so.",
    config: configSchema,
    // A watcher holds one call for as long as it watches.
    maxConcurrentRequests: 32,
    workerEnv: [
      {
        name: "RUNE_DTYPE_OVERRIDE",
        label: "dtype for every model",
        description: "Answer of resolve_dtype where the call names none.",
      },
    ],
    initialize: async (config) => {
      await tower.configure(config);
      await tower.monitor();
    },
    release: { source: () => tower.close() },
    cleanup: () => tower.close(),
    monitor: {
      getSystemStatus: async () => {
        const [sample, system] = await Promise.all([tower.sample(), readSystem()]);
        return { ...originalStatus(sample, system), ...system, ...sample };
      },
      listProcesses: async () => originalProcesses(await tower.sample()),
    },
    actions: { ...readings(tower), ...advice(tower) },
  });
}

function readings(tower: Watchtower): Readonly<Record<string, Action>> {
  return {
    report: defineAction({
      description: "One full answer: CPU, RAM, disks, GPUs with processes, source, reasons.",
      default: true,
      input: nothing,
      output: reportOutput,
      handler: async () => {
        const [sample, system] = await Promise.all([tower.sample(), readSystem()]);
        const { source, ts, driver, gpus, notes } = sample;
        return { ...system, source, ts, driver, gpus, notes };
      },
    }),
    list_processes: defineAction({
      description: "Processes that hold GPU memory.",
      input: nothing,
      output: z.object({ source: z.enum(SOURCE_NAMES), processes: z.array(processOutput) }),
      handler: async () => {
        const sample = await tower.sample();
        return { source: sample.source, processes: originalProcesses(sample) };
      },
    }),
    watch: defineAction({
      description: "Samples of every GPU at a given rate, and events between them.",
      input: z.strictObject({ hz: z.number().positive().max(100).default(10) }),
      output: z.discriminatedUnion("type", [sampleSchema, eventSchema]),
      streaming: true,
      handler: async function* ({ hz }, call) {
        yield* (await tower.monitor()).watch(hz, call.signal);
      },
    }),
  };
}

function advice(tower: Watchtower): Readonly<Record<string, Action>> {
  return {
    compute_budget: defineAction({
      description: "How many agents, LoRA adapters and trainings fit in the memory free now.",
      input: budgetInput,
      output: budgetOutput,
      handler: async (input) => computeBudget(input, await tower.sample(), availableParallelism()),
    }),
    resolve_dtype: defineAction({
      description: "The most precise dtype in which a model's weights fit.",
      input: dtypeInput,
      output: dtypeOutput,
      handler: async (input) => resolveDtype(input, await tower.sample(), host()),
    }),
    best_device: defineAction({
      description: "cuda, else mps, else cpu.",
      input: nothing,
      output: bestDeviceOutput,
      handler: async () => bestDevice(await tower.sample(), host()),
    }),
  };
}

function host(): { platform: string; arch: string; override: string } {
  const override = process.env["RUNE_DTYPE_OVERRIDE"] ?? "";
  return { platform: process.platform, arch: process.arch, override };
}
