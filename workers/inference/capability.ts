import { defineCapability, type Capability } from "cjm-substrate/worker";
import { adapterActions } from "./actions/adapters.ts";
import { generationActions } from "./actions/generation.ts";
import { managementActions } from "./actions/management.ts";
import { configSchema } from "./config.ts";
import { Service } from "./service.ts";
import { textGeneration } from "./task/adapter.ts";

/** Makes the capability with a state of its own. */
export function createCapability(): Capability<typeof configSchema> {
  const service = new Service();
  return defineCapability({
    name: "inference",
    version: "0.1.0",
    description: "Text generation: GGUF models in process, or a model server; with LoRA adapters.",
    config: configSchema,
    actions: {
      ...generationActions(service),
      ...adapterActions(service),
      ...managementActions(service),
    },
    tasks: [textGeneration],
    // Slots are the engine's limit; what waits for one waits here.
    maxConcurrentRequests: 256,
    resources: {
      requires_gpu: false,
      platforms: ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64", "win-x64"],
      accelerators: ["cuda", "vulkan", "metal"],
    },
    workerEnv: [
      { name: "INFERENCE_API_KEY", secret: true, required: false },
      {
        name: "INFERENCE_SERVER_API_KEY",
        label: "Key of the server behind engine openai",
        secret: true,
        required: false,
      },
    ],
    initialize: (config, context) => service.initialize(config, context),
    prefetch: async ({ signal, progress }) => {
      await service.engine.prefetch({ signal, progress });
    },
    release: {
      engine: () => service.closeEngine(),
      endpoint: () => service.closeEndpoint(),
    },
    releaseMemory: (level) => service.engine.release(level),
    cleanup: () => service.close(),
  });
}
