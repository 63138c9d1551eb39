import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../src/worker/index.ts";
import type { MergerConfig } from "../workers/adapter-merger/config.ts";
import { fillNormal, streamKey } from "../workers/adapter-merger/math/random.ts";
import { createFile, TensorSink } from "../workers/adapter-merger/safetensors/writer.ts";
import type { TensorSpec } from "../workers/adapter-merger/safetensors/header.ts";

/** The linear layers of one block of a 7B model (hidden 4096, MLP 11008): out x in. */
const BLOCK = {
  "self_attn.q_proj": [4096, 4096],
  "self_attn.k_proj": [4096, 4096],
  "self_attn.v_proj": [4096, 4096],
  "self_attn.o_proj": [4096, 4096],
  "mlp.gate_proj": [11_008, 4096],
  "mlp.up_proj": [11_008, 4096],
  "mlp.down_proj": [4096, 11_008],
} as const;

/** Fills every tensor of a new file with normal numbers that depend on `seed` and its name. */
function writeNormal(path: string, specs: readonly TensorSpec[], seed: string): void {
  using sink = new TensorSink(createFile(path, specs, { format: "pt" }));
  for (const { name, shape } of specs) {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    fillNormal(streamKey(0, seed, name), values);
    for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) * 0.02;
    sink.writeFloats(name, 0, values);
  }
}

/** A float32 LoRA adapter for every linear layer of the first `layers` blocks of a 7B model. */
export function writeSevenB(folder: string, seed: string, layers: number, rank = 16): string {
  mkdirSync(folder, { recursive: true });
  const specs: TensorSpec[] = [];
  for (let layer = 0; layer < layers; layer += 1) {
    for (const [module, [outputs, inputs]] of Object.entries(BLOCK)) {
      const name = `base_model.model.model.layers.${layer}.${module}`;
      specs.push({ name: `${name}.lora_A.weight`, dtype: "F32", shape: [rank, inputs] });
      specs.push({ name: `${name}.lora_B.weight`, dtype: "F32", shape: [outputs, rank] });
    }
  }
  writeNormal(join(folder, "adapter_model.safetensors"), specs, seed);
  const targets = Object.keys(BLOCK).map((name) => name.split(".").at(-1));
  const config = { peft_type: "LORA", r: rank, lora_alpha: 2 * rank, target_modules: targets };
  writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(config));
  return folder;
}

/** A bfloat16 checkpoint of `layers` blocks of a 7B model in one file. */
export function writeCheckpoint(folder: string, seed: string, layers: number): string {
  mkdirSync(folder, { recursive: true });
  const specs: TensorSpec[] = [];
  for (let layer = 0; layer < layers; layer += 1) {
    for (const [module, shape] of Object.entries(BLOCK)) {
      specs.push({ name: `model.layers.${layer}.${module}.weight`, dtype: "BF16", shape });
    }
  }
  writeNormal(join(folder, "model.safetensors"), specs, seed);
  return folder;
}

let calls = 0;

/** A call outside a host, with nothing cached between repeats. */
export function benchCall(folder: string, threads: number): Call<MergerConfig> {
  calls += 1;
  const silent = (): void => undefined;
  const dataFolder = join(folder, "data");
  mkdirSync(dataFolder, { recursive: true });
  return {
    config: { threads, cache_entries: 0, cache_mb: 0 },
    envelope: { control: {} },
    signal: new AbortController().signal,
    dataFolder,
    outputFolder: join(folder, "out", String(calls)),
    log: { debug: silent, info: silent, warning: silent, error: silent },
    progress: silent,
    account: silent,
    usage: silent,
    memory: silent,
    heartbeat: (_, work) => work(),
    invoke: () => Promise.reject(new TypeError("No other action here")),
  };
}
