import type { Gpu } from "./library.ts";

/** What the engine is made with. */
export interface LlamaCppOptions {
  /** A GGUF file, absolute. */
  readonly modelPath: string;
  /** Name under which the model is served. */
  readonly modelId: string;
  readonly gpu: Gpu;
  /** Layers on the GPU; undefined: as many as fit. */
  readonly gpuLayers: number | undefined;
  /** Tokens of one slot; undefined: the model's own, at most 4096. */
  readonly contextSize: number | undefined;
  /** Calls that generate at once with the same adapters; further ones wait. */
  readonly slots: number;
  /** Undefined: measured. */
  readonly threads: number | undefined;
  /** Sets of adapters kept ready beside the bare model. */
  readonly adapterSets: number;
  /** Seconds without a call after which the model is unloaded; 0: never. */
  readonly idleUnloadSeconds: number;
}
