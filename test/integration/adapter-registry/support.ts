import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { capability } from "../../../workers/adapter-registry/capability.ts";
import { CapabilityUnderTest } from "../../support/capability-under-test.ts";

/** A LoRA adapter of a few numbers, different for each seed. */
export function tinyAdapter(
  folder: string,
  { seed, rank = 2, base = "tiny" }: { seed: number; rank?: number; base?: string },
): string {
  mkdirSync(folder, { recursive: true });
  const shapes = { "q_proj.lora_A.weight": [rank, 4], "q_proj.lora_B.weight": [4, rank] };
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, [rows = 0, columns = 0]] of Object.entries(shapes)) {
    const start = end;
    end += rows * columns * 4;
    header[`base_model.model.${name}`] = {
      dtype: "F32",
      shape: [rows, columns],
      data_offsets: [start, end],
    };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const numbers = Float32Array.from({ length: end / 4 }, (_, index) => seed + index);
  const file = Buffer.concat([length, text, Buffer.from(numbers.buffer)]);
  writeFileSync(join(folder, "adapter_model.safetensors"), file);
  const config = { peft_type: "LORA", r: rank, lora_alpha: rank, base_model_name_or_path: base };
  writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(config));
  return folder;
}

/** Rank 1, one module of 4 x 4 for each skill: the first entry of its delta is the skill. */
export function skilledAdapter(folder: string, skills: Readonly<Record<string, number>>): string {
  mkdirSync(folder, { recursive: true });
  const tensors = Object.entries(skills).flatMap(([name, skill]) => [
    { name: `base_model.model.${name}.lora_A.weight`, shape: [1, 4], numbers: [1, 0, 0, 0] },
    { name: `base_model.model.${name}.lora_B.weight`, shape: [4, 1], numbers: [skill, 0, 0, 0] },
  ]);
  const header = tensors.map(({ name, shape }, at) => {
    return [name, { dtype: "F32", shape, data_offsets: [16 * at, 16 * (at + 1)] }] as const;
  });
  const text = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const numbers = Float32Array.from(tensors.flatMap((tensor) => tensor.numbers));
  const file = Buffer.concat([length, text, Buffer.from(numbers.buffer)]);
  writeFileSync(join(folder, "adapter_model.safetensors"), file);
  const config = {
    peft_type: "LORA",
    r: 1,
    lora_alpha: 1,
    base_model_name_or_path: "tiny",
    target_modules: Object.keys(skills),
  };
  writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(config));
  return folder;
}

/** A registry worker on a folder that is gone when the scope is left. */
export class RegistryUnderTest implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), "cjm-registry-test-"));
  readonly folder: string;
  #worker: CapabilityUnderTest | undefined;

  private constructor(folder: string | undefined) {
    this.folder = folder ?? join(this.path, "registry");
  }

  static async open(folder?: string): Promise<RegistryUnderTest> {
    const opened = new RegistryUnderTest(folder);
    await opened.start();
    return opened;
  }

  get worker(): CapabilityUnderTest {
    if (this.#worker === undefined) throw new TypeError("The registry is closed");
    return this.#worker;
  }

  async start(): Promise<void> {
    this.#worker = await CapabilityUnderTest.start(capability, {
      config: { folder: this.folder },
      outputFolder: join(this.path, "outputs"),
    });
  }

  async stop(): Promise<void> {
    await this.#worker?.stop();
    this.#worker = undefined;
  }

  call(...args: Parameters<CapabilityUnderTest["call"]>): ReturnType<CapabilityUnderTest["call"]> {
    return this.worker.call(...args);
  }

  /** Stores a tiny adapter of its own and gives its id back. */
  async store(id: string, seed: number, facts: object = {}): Promise<string> {
    const adapter = tinyAdapter(join(this.path, "sources", id), { seed });
    await this.call("store", { adapter, id, task_type: "spelling", ...facts });
    return id;
  }

  /** Every file in the registry's folder but the database's own. */
  files(): string[] {
    return readdirSync(this.folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.name.startsWith("registry."))
      .map((entry) => join(entry.parentPath, entry.name).slice(this.folder.length + 1))
      .toSorted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.path, { recursive: true, force: true });
  }
}
