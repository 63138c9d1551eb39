/** What the machine has at one moment; null where nobody measures it. */
export interface ResourceSnapshot {
  readonly gpus:
    readonly { readonly uuid: string; readonly totalMb: number; readonly freeMb: number }[] | null;
  /** Model of the GPUs, part of every profile key; null without one. */
  readonly gpuModel: string | null;
  readonly ramFreeMb: number | null;
  readonly diskFreeMb: number | null;
  /** What each worker's process tree holds now. */
  readonly instances: readonly {
    readonly instanceId: string;
    readonly vramMb: number;
    readonly ramMb: number;
  }[];
}

/** Where admission gets its measurements; `host.ts` connects it to the telemetry. */
export interface ResourceProbe {
  snapshot(): ResourceSnapshot;
  /** Calls `listener` when something an admission may wait for has changed. Returns the unsubscribe. */
  onChange(listener: () => void): () => void;
}
