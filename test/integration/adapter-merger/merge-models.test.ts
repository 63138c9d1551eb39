import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { SafetensorsFile } from "../../../workers/adapter-merger/safetensors/reader.ts";
import {
  filesBelow,
  Folder,
  makeCall,
  mergeCheckpoints,
  normal,
  readJson,
  tensor,
  writeTensors,
  type Tensor,
} from "./support.ts";

const NAMES = [
  "model.embed.weight",
  "model.layers.0.w",
  "model.layers.1.w",
  "model.norm.weight",
  "lm_head.weight",
];

function tensorsOf(seed: string, dtype: "F32" | "BF16" = "F32"): Record<string, Tensor> {
  const shape = (name: string): number[] => (name.includes("norm") ? [40] : [50, 40]);
  return Object.fromEntries(
    NAMES.map((name) => [name, normal(shape(name), `${seed}/${name}`, dtype)]),
  );
}

/** A checkpoint in two shards, with an index, a config and a tokenizer. */
function sharded(folder: string, tensors: Readonly<Record<string, Tensor>>): string {
  const names = Object.keys(tensors);
  const shards = {
    "model-00001-of-00002.safetensors": names.slice(0, 2),
    "model-00002-of-00002.safetensors": names.slice(2),
  };
  const weightMap: Record<string, string> = {};
  for (const [file, held] of Object.entries(shards)) {
    writeTensors(
      join(folder, file),
      Object.fromEntries(held.map((name) => [name, tensors[name] ?? tensor([0], [])])),
    );
    for (const name of held) weightMap[name] = file;
  }
  writeFileSync(
    join(folder, "model.safetensors.index.json"),
    JSON.stringify({ weight_map: weightMap }),
  );
  writeFileSync(
    join(folder, "config.json"),
    JSON.stringify({ model_type: "tiny", torch_dtype: "bfloat16" }),
  );
  writeFileSync(join(folder, "tokenizer.json"), "{}");
  writeFileSync(join(folder, "pytorch_model.bin"), "old weights");
  return folder;
}

function single(folder: string, tensors: Readonly<Record<string, Tensor>>): string {
  writeTensors(join(folder, "model.safetensors"), tensors);
  return folder;
}

/** Every tensor of a merged checkpoint, by name, through its index if it has one. */
function readModel(path: string): Record<string, Float32Array> {
  const files = filesBelow(path).filter((file) => file.endsWith(".safetensors"));
  const entries = files.flatMap((file) => {
    using opened = SafetensorsFile.open(file);
    return [...opened.header.tensors.keys()].map((name) => [name, opened.floats(name)] as const);
  });
  return Object.fromEntries(entries);
}

function largestDifference(got: ArrayLike<number> | undefined, want: readonly number[]): number {
  return want.reduce((worst, value, i) => Math.max(worst, Math.abs((got?.[i] ?? NaN) - value)), 0);
}

describe("merging checkpoints", () => {
  test("linear takes the weighted mean and copies config and tokenizer, not old weights", async () => {
    using folder = new Folder();
    const [x, y] = [tensorsOf("x"), tensorsOf("y")];
    const models = [
      { path: sharded(folder.in("x"), x), weight: 3 },
      { path: single(folder.in("y"), y), weight: 1 },
    ];
    const { model, report } = await mergeCheckpoints(
      { models, method: "linear" },
      makeCall(folder),
    );
    const got = readModel(model.data.path);
    for (const name of NAMES) {
      const want = [...(x[name]?.values ?? [])].map(
        (value, i) => 0.75 * value + 0.25 * (y[name]?.values[i] ?? 0),
      );
      expect(largestDifference(got[name], want)).toBeLessThan(1e-6);
    }
    expect(report.modules).toBe(NAMES.length);
    expect(model.data.files.map(({ name }) => name)).toEqual([
      "config.json",
      "merge_provenance.json",
      "merge_report.json",
      "model.safetensors",
      "tokenizer.json",
    ]);
  });

  test("task_arithmetic adds the weighted differences to the base, shard by shard with an index", async () => {
    using folder = new Folder();
    const [base, x, y] = [tensorsOf("base"), tensorsOf("x"), tensorsOf("y")];
    const big = (seed: string): Record<string, Tensor> => ({
      ...tensorsOf(seed),
      "big.a": normal([900, 200], `${seed}/a`),
      "big.b": normal([900, 200], `${seed}/b`),
    });
    const input = {
      base: sharded(folder.in("base"), { ...base, ...big("base") }),
      models: [
        { path: sharded(folder.in("x"), { ...x, ...big("x") }), weight: 0.5 },
        { path: sharded(folder.in("y"), { ...y, ...big("y") }), weight: -0.25 },
      ],
      method: "task_arithmetic" as const,
      max_shard_mb: 1,
    };
    const { model } = await mergeCheckpoints(input, makeCall(folder));
    const got = readModel(model.data.path);
    for (const name of [...NAMES, "big.b"]) {
      const [b, v, w] = ["base", "x", "y"].map(
        (seed) => big(seed)[name]?.values ?? new Float32Array(),
      );
      const want = [...(b ?? [])].map(
        (value, i) => value + 0.5 * ((v?.[i] ?? 0) - value) - 0.25 * ((w?.[i] ?? 0) - value),
      );
      expect(largestDifference(got[name], want)).toBeLessThan(2e-6);
    }
    const index = readJson(join(model.data.path, "model.safetensors.index.json"));
    const files = new Set(Object.values(index["weight_map"] as Record<string, string>));
    expect(files.size).toBeGreaterThan(1);
    for (const file of files) expect(existsSync(join(model.data.path, file))).toBe(true);
  });

  test.for(["slerp", "ties", "dare_ties", "della", "breadcrumbs"] as const)(
    "%s: the same bytes for 1 and 3 threads, and a repeat is answered from the cache",
    async (method) => {
      using folder = new Folder();
      const base = method === "slerp" ? {} : { base: single(folder.in("base"), tensorsOf("base")) };
      const models = ["x", "y"].map((seed) => ({ path: single(folder.in(seed), tensorsOf(seed)) }));
      const hashes = [];
      for (const threads of [1, 3]) {
        const call = makeCall(folder, { config: { cache_entries: threads === 1 ? 0 : 8 } });
        const { model, cache_hit: isHit } = await mergeCheckpoints(
          { ...base, models, method, threads },
          call,
        );
        hashes.push(model.data.sha256);
        expect(isHit).toBe(false);
      }
      expect(new Set(hashes).size).toBe(1);
      const again = await mergeCheckpoints({ ...base, models, method }, makeCall(folder));
      expect(again).toMatchObject({ cache_hit: true, model: { data: { sha256: hashes[0] } } });
    },
  );

  test("ties of models that equal the base gives the base, in bfloat16 with mergekit's rounding", async () => {
    using folder = new Folder();
    const tensors = tensorsOf("base", "BF16");
    const path = single(folder.in("base"), tensors);
    const input = { base: path, models: [{ path }, { path }], compat: "mergekit" as const };
    const { model, report } = await mergeCheckpoints(input, makeCall(folder));
    using file = SafetensorsFile.open(join(model.data.path, "model.safetensors"));
    using before = SafetensorsFile.open(join(path, "model.safetensors"));
    for (const name of NAMES) expect([...file.floats(name)]).toEqual([...before.floats(name)]);
    expect(report.sign_conflict).toBe(0);
  });

  test("another dtype is written and named in the config", async () => {
    using folder = new Folder();
    const models = ["x", "y"].map((seed) => ({ path: sharded(folder.in(seed), tensorsOf(seed)) }));
    const input = { models, method: "linear" as const, dtype: "float16" as const };
    const { model } = await mergeCheckpoints(input, makeCall(folder));
    using file = SafetensorsFile.open(join(model.data.path, "model.safetensors"));
    expect([...file.header.tensors.values()].every(({ dtype }) => dtype === "F16")).toBe(true);
    expect(readJson(join(model.data.path, "config.json"))["torch_dtype"]).toBe("float16");
  });

  test("every mismatch is listed, and a missing base is named", async () => {
    using folder = new Folder();
    const base = single(folder.in("base"), tensorsOf("base"));
    const { "model.norm.weight": _, ...rest } = tensorsOf("x");
    const path = single(folder.in("x"), {
      ...rest,
      "lm_head.weight": normal([4, 4], "l"),
      extra: normal([1], "e"),
    });
    const running = mergeCheckpoints({ base, models: [{ path }] }, makeCall(folder));
    await expect(running).rejects.toMatchObject({
      code: "CAPABILITY_INPUT",
      details: {
        problems: [
          expect.stringContaining("extra is not in"),
          expect.stringContaining("norm.weight is missing"),
          expect.stringContaining("lm_head.weight is F32 [4, 4]"),
        ] as unknown,
      },
    });
    const noBase = mergeCheckpoints({ models: [{ path: base }] }, makeCall(folder));
    await expect(noBase).rejects.toThrow("differences to a base");
  });

  test("an index that lies is refused", async () => {
    using folder = new Folder();
    const path = sharded(folder.in("x"), tensorsOf("x"));
    const index = join(path, "model.safetensors.index.json");
    const map = readJson(index)["weight_map"] as Record<string, string>;
    const models = [{ path }];
    for (const weightMap of [
      { ...map, ghost: "model-00001-of-00002.safetensors" },
      { ...map, "lm_head.weight": "model-00001-of-00002.safetensors" },
      { ...map, "lm_head.weight": "../x/model-00002-of-00002.safetensors" },
    ]) {
      writeFileSync(index, JSON.stringify({ weight_map: weightMap }));
      const running = mergeCheckpoints({ models, method: "linear" }, makeCall(folder));
      await expect(running).rejects.toMatchObject({ code: "FILE_INVALID" });
    }
  });
});

describe("an interrupted merge", () => {
  const hooks = fileURLToPath(new URL("source-hooks.ts", import.meta.url));
  const script = fileURLToPath(new URL("run-merge.ts", import.meta.url));

  test("that was killed continues behind its last complete shard, with the same bytes", async () => {
    using folder = new Folder();
    const tensors = (seed: string): Record<string, Tensor> =>
      Object.fromEntries(
        Array.from({ length: 6 }, (_, i) => [`w${i}`, normal([500, 400], `${seed}${i}`)]),
      );
    const models = ["x", "y"].map((seed) => ({ path: single(folder.in(seed), tensors(seed)) }));
    const input = { models, method: "linear" as const, max_shard_mb: 1 };
    mkdirSync(folder.in("data"));

    const child = spawn(
      process.execPath,
      ["--import", hooks, script, folder.path, "models", JSON.stringify(input)],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    for await (const line of createInterface(child.stdout)) {
      if (line === "model-00003-of-00006.safetensors is complete") child.kill("SIGKILL");
      expect(line).not.toContain("answer");
    }
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    expect(child.signalCode).toBe("SIGKILL");

    const resumed = await mergeCheckpoints(input, makeCall(folder));
    expect(resumed.resumed_shards).toBeGreaterThanOrEqual(3);
    expect(filesBelow(folder.in("data", "partial"))).toEqual([]);
    using fresh = new Folder();
    const whole = await mergeCheckpoints(input, makeCall(fresh));
    expect(whole.resumed_shards).toBe(0);
    expect(resumed.model.data.sha256).toBe(whole.model.data.sha256);
  });

  test("that was cancelled leaves nothing in its output and continues too", async () => {
    using folder = new Folder();
    const models = ["x", "y"].map((seed) => ({
      path: single(folder.in(seed), {
        a: normal([600, 500], `${seed}a`),
        b: normal([600, 500], `${seed}b`),
      }),
    }));
    const input = { models, method: "linear" as const, max_shard_mb: 1 };
    const controller = new AbortController();
    const onProgress = (message: string): void => {
      if (message.endsWith("is complete")) controller.abort();
    };
    const call = makeCall(folder, { signal: controller.signal, onProgress });
    await expect(mergeCheckpoints(input, call)).rejects.toMatchObject({
      code: "CAPABILITY_CANCELLED",
    });
    expect(filesBelow(call.outputFolder)).toEqual([]);
    const names = filesBelow(folder.in("data", "partial")).map((path) => basename(path));
    expect(names).toContain("model-00001-of-00002.safetensors");
    expect(await mergeCheckpoints(input, makeCall(folder))).toMatchObject({ resumed_shards: 1 });
  });
});
