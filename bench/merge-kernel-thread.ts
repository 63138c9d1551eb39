import { parentPort, workerData } from "node:worker_threads";
import { rulesFor } from "../workers/adapter-merger/engine/rules.ts";
import {
  counterDraws,
  mergeVectors,
  vectorsInMemory,
} from "../workers/adapter-merger/engine/vector-merge.ts";

interface Shared {
  readonly inputs: SharedArrayBuffer;
  readonly output: SharedArrayBuffer;
  readonly next: SharedArrayBuffer;
  readonly tensors: number;
  readonly length: number;
}

const { inputs, output, next, tensors, length } = workerData as Shared;
const counter = new Int32Array(next);
const merge = {
  rules: rulesFor("ties", "peft", { vote: "total" }),
  weights: [1, 0.5, 0.7],
  densities: [0.5, 0.5, 0.5],
  lambda: 1,
  gamma: 0,
  epsilon: 0,
  dtype: "F32" as const,
  draws: counterDraws([]),
  onNonFinite: (): void => undefined,
};

parentPort?.on("message", () => {
  for (;;) {
    const tensor = Atomics.add(counter, 0, 1);
    if (tensor >= tensors) break;
    const views = [0, 1, 2].map((input) => {
      return new Float32Array(inputs, (input * tensors + tensor) * length * 4, length);
    });
    const out = new Float32Array(output, tensor * length * 4, length);
    mergeVectors(vectorsInMemory(views, 1), merge, (start, values) => out.set(values, start));
  }
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  parentPort?.postMessage("done");
});
