import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { capability } from "../../../workers/adapter-merger/capability.ts";
import { mergeInputSchema } from "../../../workers/adapter-merger/schemas.ts";
import {
  filesBelow,
  Folder,
  makeCall,
  merge,
  normal,
  normalAdapter,
  tensor,
  writeAdapter,
  type AdapterFixture,
} from "./support.ts";

const pair = { a: normal([2, 4], "a"), b: normal([6, 2], "b") };

/** Merges a fixture with a sound adapter and gives the error. */
async function refusal(fixture: Partial<AdapterFixture>): Promise<Error> {
  using folder = new Folder();
  const sound = writeAdapter(folder.in("sound"), { modules: { m: pair } });
  const path = writeAdapter(folder.in("bad"), { modules: { m: pair }, ...fixture });
  const call = makeCall(folder);
  try {
    await merge({ adapters: [{ path: sound }, { path }] }, call);
  } catch (error) {
    expect(filesBelow(folder.in("out"))).toEqual([]);
    if (error instanceof Error) return error;
  }
  throw new Error("The merge was not refused");
}

describe("an adapter is refused by name", () => {
  test.for([
    ["DoRA in the config", { config: { use_dora: true } }, "use_dora"],
    [
      "DoRA in the tensors",
      { extra: { "base_model.model.m.lora_magnitude_vector": tensor([6], [1, 2, 3, 4, 5, 6]) } },
      "DoRA magnitudes: base_model.model.m.lora_magnitude_vector",
    ],
    ["a trained bias", { config: { bias: "all" } }, 'bias "all"'],
    [
      "a bias tensor",
      { extra: { "base_model.model.m.bias": tensor([6], [1, 2, 3, 4, 5, 6]) } },
      "trained bias: base_model.model.m.bias",
    ],
    ["lora_bias", { config: { lora_bias: true } }, "lora_bias"],
    ["modules_to_save", { config: { modules_to_save: ["lm_head"] } }, "modules_to_save: lm_head"],
    [
      "a saved module",
      { extra: { "base_model.model.lm_head.weight": tensor([2], [1, 2]) } },
      "base_model.model.lm_head.weight",
    ],
    ["another kind of adapter", { config: { peft_type: "LOHA" } }, "peft_type LOHA"],
    [
      "an initialisation that changes the base",
      { config: { init_lora_weights: "pissa_niter_4" } },
      "pissa_niter_4",
    ],
    ["target_parameters", { config: { target_parameters: ["experts"] } }, "target_parameters"],
    [
      "a factor without its partner",
      { extra: { "base_model.model.n.lora_A.weight": tensor([1, 2], [1, 2]) } },
      "base_model.model.n has only one",
    ],
    [
      "factors that do not multiply",
      { modules: { m: { a: normal([2, 4], "a"), b: normal([6, 3], "b") } } },
      "do not multiply",
    ],
    ["no modules at all", { modules: {} }, "holds no LoRA tensors"],
    [
      "an empty module",
      { modules: { m: { a: tensor([2, 0], []), b: normal([6, 2], "b") } } },
      "is empty",
    ],
    ["a rank that is not the config's", { config: { r: 7 } }, "has rank 2, its config says 7"],
    ["another base model", { config: { base_model_name_or_path: "other" } }, 'base model "other"'],
    ["another fan_in_fan_out", { config: { fan_in_fan_out: true } }, "fan_in_fan_out is true"],
    [
      "another shape",
      { modules: { m: { a: normal([2, 5], "a"), b: normal([6, 2], "b") } } },
      "module base_model.model.m is 6 x 5",
    ],
    ["another module", { modules: { other: pair } }, "module base_model.model.m is missing"],
    [
      "a config that is no JSON object",
      { config: { r: "eight", lora_alpha: null } },
      "adapter_config.json",
    ],
  ] as const)("%s", async ([, fixture, text]) => {
    const error = await refusal(fixture);
    expect(error.message).toContain(text);
    expect(error).toMatchObject({ name: "MergeFault" });
  });

  test("with every reason at once", async () => {
    const error = await refusal({
      config: { use_dora: true, bias: "lora_only", modules_to_save: ["head"] },
    });
    for (const part of ["use_dora", "lora_only", "head"]) expect(error.message).toContain(part);
  });
});

describe("files", () => {
  test("that are missing or cut off are typed errors, and the inputs stay as they were", async () => {
    using folder = new Folder();
    const path = normalAdapter(folder.in("a"), { seed: "a" });
    const weights = join(path, "adapter_model.safetensors");
    const bytes = readFileSync(weights);
    writeFileSync(weights, bytes.subarray(0, bytes.length - 4));
    const cut = merge({ adapters: [{ path }] }, makeCall(folder));
    await expect(cut).rejects.toMatchObject({ code: "FILE_INVALID", reason: "truncated" });
    expect(readFileSync(weights)).toEqual(bytes.subarray(0, bytes.length - 4));
    const missing = merge({ adapters: [{ path: folder.in("nowhere") }] }, makeCall(folder));
    await expect(missing).rejects.toMatchObject({ code: "CAPABILITY_INPUT", reason: "path" });
  });

  test("a disk that fills up in the middle gives a typed error and no partial output", ({
    skip,
  }) => {
    using folder = new Folder();
    const options = { modules: ["m"], outputs: 3000, inputs: 3000, rank: 64 };
    const adapters = ["a", "b"].map((seed) => ({
      path: normalAdapter(folder.in(seed), { seed, ...options }),
    }));
    const input = JSON.stringify({ adapters, method: "cat" });
    mkdirSync(folder.in("out"));
    const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
    // A file system of its own, 1 MB large; the check of free space is answered by another one.
    const command = [
      "mount -t tmpfs -o size=1m tmpfs out || exit 77",
      `node --import ${file("source-hooks.ts")} --import ${file("plenty-of-disk.ts")} ${file("run-merge.ts")} . adapters '${input}'`,
      "echo left $(find out -type f | wc -l)",
    ].join("\n");
    const run = spawnSync(
      "unshare",
      ["--user", "--map-root-user", "--mount", "sh", "-c", command],
      {
        cwd: folder.path,
        encoding: "utf8",
        env: {
          ...process.env,
          PATH: `${join(process.execPath, "..")}:${process.env["PATH"] ?? ""}`,
        },
      },
    );
    if (run.error !== undefined || run.status === 77 || run.stderr.includes("unshare"))
      skip("no user namespaces");
    expect(run.stdout).toContain('"code":"CAPABILITY_RESOURCE","reason":"disk_full"');
    expect(run.stdout).toContain("left 0");
  });

  test("too little disk is refused before anything is written", async () => {
    using folder = new Folder();
    const config = { r: 2, rank_pattern: {} };
    const path = writeAdapter(folder.in("a"), { modules: { m: pair }, config });
    const call = makeCall(folder);
    const { requireDisk } = await import("../../../workers/adapter-merger/output/staging.ts");
    await expect(requireDisk(folder.path, 1e18)).rejects.toMatchObject({
      code: "CAPABILITY_RESOURCE",
      details: { shortfall: { resource: "disk_mb" } },
    });
    await merge({ adapters: [{ path }], method: "linear" }, call);
  });
});

describe("the capability", () => {
  test("turns a refusal into the substrate's error and keeps the reason", async () => {
    using folder = new Folder();
    const path = writeAdapter(folder.in("a"), { modules: { m: pair }, config: { use_dora: true } });
    const action = capability.actions["merge"];
    if (action === undefined || action.streaming === true) throw new Error("No unary merge action");
    const running = action.handler(
      mergeInputSchema.parse({ adapters: [{ path }] }),
      makeCall(folder) as never,
    );
    await expect(running).rejects.toMatchObject({
      name: "CjmError",
      code: "CAPABILITY_INPUT",
      category: "user_input",
      details: { reason: "unsupported" },
    });
  });

  test("every input field says what it is", () => {
    for (const [name, action] of Object.entries(capability.actions)) {
      const fields = (action.input as typeof mergeInputSchema).shape;
      for (const [field, schema] of Object.entries(fields)) {
        expect(schema.description ?? "", `${name}.${field}`).not.toBe("");
      }
    }
  });

  test.for([
    { adapters: [] },
    { adapters: [{ path: "x" }], method: "average" },
    { adapters: [{ path: "x" }], rank: 0 },
    { adapters: [{ path: "x" }], energy: 1.5 },
    { adapters: [{ path: "x", wieght: 2 }] },
    { adapters: [{ path: "x", weight: Infinity }] },
  ])("refuses $0 by its schema", (input) => {
    expect(mergeInputSchema.safeParse(input).success).toBe(false);
  });
});
