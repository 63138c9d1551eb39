import type * as library from "node-llama-cpp";
import type { Llama, LlamaGpuType } from "node-llama-cpp";
import type { WorkerLogger } from "cjm-substrate/worker";
import { engineMissing } from "../fault.ts";

export type Gpu = "auto" | "cuda" | "vulkan" | "metal" | "none";
export type Library = typeof library;

/** The native library, initialised once per process. */
export interface Native {
  readonly library: Library;
  readonly llama: Llama;
  readonly version: string;
}

const opened = new Map<Gpu, Promise<Native>>();

/** The library for a kind of GPU: process-wide, so it is opened once and stays. */
export async function openNative(gpu: Gpu, log: WorkerLogger): Promise<Native> {
  const opening = opened.get(gpu) ?? load(gpu, log);
  opened.set(gpu, opening);
  try {
    return await opening;
  } catch (error) {
    opened.delete(gpu);
    throw error;
  }
}

/**
 * Loads node-llama-cpp and the prebuilt llama.cpp for this machine; builds and downloads nothing.
 *
 * @throws {CjmError} `SETUP_REQUIRED` (`engine_missing`) where the package or its binary is not there
 */
async function load(gpu: Gpu, log: WorkerLogger): Promise<Native> {
  const library = await importLibrary();
  try {
    const llama = await library.getLlama({
      gpu: gpuOption(gpu),
      build: "never",
      skipDownload: true,
      progressLogs: false,
      // Threads are measured; a common budget would take them away again.
      maxThreads: 0,
      logLevel: library.LlamaLogLevel.warn,
      logger: (_, message) => log.debug(message.trimEnd()),
    });
    const build = llama.gpu === false ? "cpu" : llama.gpu;
    return { library, llama, version: `${await library.getModuleVersion()} ${build}` };
  } catch (error) {
    throw engineMissing(
      `llama.cpp for ${process.platform}-${process.arch} with gpu ${gpu} does not load: ` +
        "run `cjm-ctl install-all` on this machine, or set `gpu: none`",
      error,
    );
  }
}

async function importLibrary(): Promise<Library> {
  try {
    return await import("node-llama-cpp");
  } catch (error) {
    throw engineMissing(
      "The package node-llama-cpp is not installed: run `cjm-ctl install-all --only inference`",
      error,
    );
  }
}

function gpuOption(gpu: Gpu): "auto" | LlamaGpuType {
  return gpu === "none" ? false : gpu;
}
