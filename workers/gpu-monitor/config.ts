import { z } from "cjm-substrate/worker";

export const configSchema = z
  .strictObject({
    source: z
      .enum(["auto", "nvml", "nvidia-smi", "amd", "system", "scripted"])
      .default("auto")
      .describe("Where GPU numbers come from; auto takes the best one that answers.")
      .meta({ reloadTrigger: "source" }),
    script: z
      .string()
      .nullable()
      .default(null)
      .describe("JSON timeline of the scripted device; needed by source scripted only.")
      .meta({ format: "cjm-file", reloadTrigger: "source" }),
    nvml_library: z
      .string()
      .default("libnvidia-ml.so.1")
      .describe("Shared library that implements NVML.")
      .meta({ reloadTrigger: "source" }),
    nvidia_smi: z
      .string()
      .default("nvidia-smi")
      .describe("Program that is kept running where NVML cannot be loaded.")
      .meta({ reloadTrigger: "source" }),
  })
  .refine((config) => config.source !== "scripted" || config.script !== null, {
    path: ["script"],
    message: "source scripted needs a script",
  });
export type MonitorConfig = z.output<typeof configSchema>;
