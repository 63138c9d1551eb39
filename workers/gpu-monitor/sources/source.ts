import type { Reading, SourceName } from "../model.ts";

/** One way to read the GPUs of this machine. */
export interface DeviceSource extends AsyncDisposable {
  readonly name: SourceName;
  /** Never throws for a single device: what failed is null with a reason, or `lost`. */
  read(signal?: AbortSignal): Promise<Reading>;
}

/** Tries to open a source; a string says why it cannot serve here. */
export type OpenResult = DeviceSource | string;

/** No GPU that any source knows. */
export class SystemSource implements DeviceSource {
  readonly name = "system";
  readonly #notes: readonly string[];

  constructor(notes: readonly string[]) {
    this.#notes = notes;
  }

  read(): Promise<Reading> {
    return Promise.resolve({ gpus: [], driver: null, notes: this.#notes });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}
