import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { dirRef } from "../../../src/worker/index.ts";
import { SafetensorsFile } from "../../../workers/adapter-merger/safetensors/reader.ts";
import {
  combine,
  deltaOf,
  filesBelow,
  Folder,
  makeCall,
  merge,
  normal,
  normalAdapter,
  plan,
  readJson,
  relativeError,
  tensor,
  writeAdapter,
} from "./support.ts";

const MODULE = "layers.0.q_proj";
const WEIGHTS = "adapter_model.safetensors";

function three(folder: Folder): string[] {
  return [
    normalAdapter(folder.in("a"), { seed: "a", rank: 4 }),
    normalAdapter(folder.in("b"), { seed: "b", rank: 8, config: { lora_alpha: 4 } }),
    normalAdapter(folder.in("c"), {
      seed: "c",
      rank: 2,
      config: { use_rslora: true, lora_alpha: 3 },
    }),
  ];
}

describe("merging in delta space", () => {
  test.for(["linear", "cat", "task_arithmetic"] as const)(
    "%s of different ranks, alphas and rsLoRA is exact",
    async (method) => {
      using folder = new Folder();
      const paths = three(folder);
      const weights = [0.7, -1.3, 0.4];
      const adapters = paths.map((path, i) => ({ path, weight: weights[i] ?? 1 }));
      const { adapter, report } = await merge({ adapters, method }, makeCall(folder));

      for (const module of [MODULE, "layers.0.v_proj"]) {
        const want = combine(
          paths.map((path) => deltaOf(path, module)),
          weights,
        );
        expect(relativeError(deltaOf(adapter.data.path, module), want)).toBeLessThan(1e-6);
      }
      expect(report).toMatchObject({ modules: 2, rank_min: 14, rank_max: 14, energy_kept: 1 });
      const config = readJson(join(adapter.data.path, "adapter_config.json"));
      expect(config).toMatchObject({ r: 14, lora_alpha: 14, use_rslora: false, rank_pattern: {} });
    },
  );

  test("an rsLoRA adapter merged alone keeps its delta", async () => {
    using folder = new Folder();
    const path = normalAdapter(folder.in("a"), { seed: "rs", config: { use_rslora: true } });
    const { adapter } = await merge({ adapters: [{ path }], method: "linear" }, makeCall(folder));
    expect(relativeError(deltaOf(adapter.data.path, MODULE), deltaOf(path, MODULE))).toBeLessThan(
      1e-6,
    );
  });

  test("ties equals the definition on the dense deltas when the rank is not cut", async () => {
    using folder = new Folder();
    const paths = three(folder);
    const adapters = paths.map((path) => ({ path, density: 0.4 }));
    const input = { adapters, method: "ties", rank: 24, lambda: 0.5 } as const;
    const { adapter, report } = await merge(input, makeCall(folder));
    const want = tiesOf(
      paths.map((path) => deltaOf(path, MODULE)),
      0.4,
      0.5,
    );
    expect(relativeError(deltaOf(adapter.data.path, MODULE), want)).toBeLessThan(2e-6);
    expect(report.energy_kept).toBeCloseTo(1, 6);
    expect(report.sign_conflict).toBeGreaterThan(0.1);
    for (const kept of report.kept_mass) expect(kept).toBeGreaterThan(0.6);
  });

  test("an energy target gives each module the smallest rank that reaches it", async () => {
    using folder = new Folder();
    const paths = three(folder);
    const call = makeCall(folder);
    const adapters = paths.map((path) => ({ path }));
    const { adapter, report } = await merge({ adapters, method: "linear", energy: 0.9 }, call);
    expect(report.energy_kept).toBeGreaterThanOrEqual(0.9);
    expect(report.rank_max).toBeLessThan(14);
    const want = combine(
      paths.map((path) => deltaOf(path, MODULE)),
      [1, 1, 1],
    );
    const error = relativeError(deltaOf(adapter.data.path, MODULE), want);
    expect(error).toBeLessThan(Math.sqrt(0.1));
    expect(filesBelow(adapter.data.path).filter((path) => path.includes("spool"))).toEqual([]);
  });

  test("slerp of two follows the arc between their deltas", async () => {
    using folder = new Folder();
    const paths = three(folder).slice(0, 2);
    const adapters = paths.map((path) => ({ path }));
    const { adapter } = await merge({ adapters, method: "slerp", t: 0.3 }, makeCall(folder));
    const [x = new Float64Array(), y = new Float64Array()] = paths.map((path) =>
      deltaOf(path, MODULE),
    );
    const inner = (a: Float64Array, b: Float64Array): number =>
      a.reduce((sum, v, i) => sum + v * (b[i] ?? 0), 0);
    const angle = Math.acos(inner(x, y) / Math.sqrt(inner(x, x) * inner(y, y)));
    const weights = [
      Math.sin(0.7 * angle) / Math.sin(angle),
      Math.sin(0.3 * angle) / Math.sin(angle),
    ];
    expect(
      relativeError(deltaOf(adapter.data.path, MODULE), combine([x, y], weights)),
    ).toBeLessThan(1e-6);
  });

  test.for([
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "magnitude_prune",
  ] as const)("%s writes a result that the report describes", async (method) => {
    using folder = new Folder();
    const adapters = three(folder).map((path) => ({ path, density: 0.6 }));
    const { adapter, report } = await merge({ adapters, method, rank: 24 }, makeCall(folder));
    expect(report.energy_kept).toBeCloseTo(1, 5);
    const values = deltaOf(adapter.data.path, MODULE);
    expect(values.every(Number.isFinite)).toBe(true);
    const modules = readJson(join(adapter.data.path, "merge_report.json"))["modules"] as {
      norm: number;
    }[];
    const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    expect(modules[0]?.norm).toBeCloseTo(norm, 3);
  });

  test("overrides give some modules other numbers", async () => {
    using folder = new Folder();
    const paths = three(folder);
    const adapters = paths.map((path) => ({ path }));
    const overrides = [{ modules: "v_proj$", weights: [0, 0, 2], rank: 3 }];
    const { adapter } = await merge({ adapters, method: "linear", overrides }, makeCall(folder));
    const want = combine(
      paths.map((path) => deltaOf(path, "layers.0.v_proj")),
      [0, 0, 2],
    );
    expect(relativeError(deltaOf(adapter.data.path, "layers.0.v_proj"), want)).toBeLessThan(1e-6);
    const config = readJson(join(adapter.data.path, "adapter_config.json"));
    const patterns = [config["rank_pattern"], config["alpha_pattern"]];
    expect(config["r"]).toBe(14);
    expect(patterns).toEqual([{ "layers\\.0\\.v_proj": 3 }, { "layers\\.0\\.v_proj": 3 }]);
  });

  test("a module that only some have is zero there, if that is asked for", async () => {
    using folder = new Folder();
    const one = normalAdapter(folder.in("a"), { seed: "a" });
    const two = normalAdapter(folder.in("b"), { seed: "b", modules: [MODULE] });
    const input = { adapters: [{ path: one }, { path: two }], method: "linear" as const };
    await expect(merge(input, makeCall(folder))).rejects.toThrow("layers.0.v_proj is missing");
    const { adapter } = await merge({ ...input, missing_modules: "zero" }, makeCall(folder));
    const other = "layers.0.v_proj";
    expect(relativeError(deltaOf(adapter.data.path, other), deltaOf(one, other))).toBeLessThan(
      1e-6,
    );
  });
});

/** TIES with unit weights, straight from its definition. */
function tiesOf(deltas: readonly Float64Array[], density: number, lambda: number): Float64Array {
  const pruned = deltas.map((delta) => {
    const order = [...delta.keys()].sort(
      (i, j) => Math.abs(delta[j] ?? 0) - Math.abs(delta[i] ?? 0),
    );
    const kept = new Float64Array(delta.length);
    for (const i of order.slice(0, Math.trunc(density * delta.length))) kept[i] = delta[i] ?? 0;
    return kept;
  });
  return Float64Array.from(pruned[0] ?? [], (_, i) => {
    const column = pruned.map((delta) => delta[i] ?? 0);
    const elected = column.reduce((sum, value) => sum + value, 0) >= 0 ? 1 : -1;
    const agreeing = column.filter((value) => Math.sign(value) === elected);
    const mean = agreeing.reduce((sum, value) => sum + value, 0) / Math.max(1, agreeing.length);
    return lambda * mean;
  });
}

describe("determinism", () => {
  test.for([
    { method: "ties", density: 0.5 },
    { method: "dare_ties", density: 0.3 },
    { method: "linear", rank: 5 },
    { method: "della", compat: "mergekit" },
    { method: "dare_linear", compat: "peft" },
  ] as const)("$method: the same bytes for 1, 2 and 4 threads and across runs", async (recipe) => {
    using folder = new Folder();
    const modules = Array.from({ length: 6 }, (_, i) => `layers.${i}.q_proj`);
    const adapters = ["a", "b", "c"].map((seed) => {
      return { path: normalAdapter(folder.in(seed), { seed, modules, outputs: 20, inputs: 44 }) };
    });
    const hashes = [];
    for (const threads of [1, 2, 4, 2]) {
      const call = makeCall(folder, { config: { cache_entries: 0 } });
      const { adapter } = await merge({ adapters, ...recipe, threads }, call);
      hashes.push(adapter.data.sha256);
    }
    expect(new Set(hashes).size).toBe(1);
  });

  test("a random prune does not depend on the order of the inputs, but on the seed", async () => {
    using folder = new Folder();
    const [a = "", b = ""] = three(folder);
    const run = async (paths: readonly string[], seed: number): Promise<Float64Array> => {
      const adapters = paths.map((path) => ({ path }));
      const input = { adapters, method: "dare_linear", rank: 24, seed } as const;
      const { adapter } = await merge(input, makeCall(folder));
      return deltaOf(adapter.data.path, MODULE);
    };
    const forward = await run([a, b], 1);
    expect(relativeError(await run([b, a], 1), forward)).toBeLessThan(1e-5);
    expect(relativeError(await run([a, b], 2), forward)).toBeGreaterThan(0.1);
  });
});

describe("results", () => {
  test("a repeat of the same recipe answers the same reference from the cache", async () => {
    using folder = new Folder();
    const adapters = three(folder).map((path) => ({ path }));
    const first = await merge({ adapters, method: "linear" }, makeCall(folder));
    const call = makeCall(folder);
    const again = await merge({ adapters, method: "linear", threads: 1 }, call);
    expect(again).toMatchObject({
      cache_hit: true,
      recipe_hash: first.recipe_hash,
      report: first.report,
    });
    expect(again.adapter.data.sha256).toBe(first.adapter.data.sha256);
    expect(call.accounts).toEqual(["cache_hit"]);
    expect(await dirRef(again.adapter.data.path)).toEqual(again.adapter);
    const other = await merge({ adapters, method: "linear", lambda: 2 }, makeCall(folder));
    expect(other.cache_hit).toBe(false);
  });

  test("the cache keeps no more than it may, the newest first", async () => {
    using folder = new Folder();
    const adapters = three(folder).map((path) => ({ path }));
    const config = { cache_entries: 2 };
    const hits = [];
    for (const lambda of [1, 2, 3, 3, 2, 1]) {
      const call = makeCall(folder, { config });
      const { cache_hit: isHit } = await merge({ adapters, method: "cat", lambda }, call);
      hits.push(isHit);
    }
    expect(hits).toEqual([false, false, false, true, true, false]);
    const tiny = makeCall(folder, { config: { cache_mb: 0 } });
    await merge({ adapters, method: "cat", lambda: 9 }, tiny);
    const again = makeCall(folder, { config });
    expect(await merge({ adapters, method: "cat", lambda: 9 }, again)).toMatchObject({
      cache_hit: false,
    });
  });

  test("an input that changes while it is merged is an error", async () => {
    using folder = new Folder();
    const adapters = three(folder).map((path) => ({ path }));
    const weights = join(adapters[0]?.path ?? "", WEIGHTS);
    const onProgress = (): void => utimesSync(weights, 1, 1);
    const call = makeCall(folder, { onProgress });
    const running = merge({ adapters, method: "cat" }, call);
    await expect(running).rejects.toMatchObject({ code: "FILE_INVALID", reason: "changed" });
    expect(filesBelow(call.outputFolder)).toEqual([]);
  });

  test("a damaged cache entry is made again", async () => {
    using folder = new Folder();
    const adapters = three(folder).map((path) => ({ path }));
    const first = await merge({ adapters, method: "linear" }, makeCall(folder));
    const kept = filesBelow(folder.in("data")).find((path) => path.endsWith(WEIGHTS)) ?? "";
    const bytes = readFileSync(kept);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    writeFileSync(kept, bytes);
    const again = await merge({ adapters, method: "linear" }, makeCall(folder));
    expect(again.cache_hit).toBe(false);
    expect(again.adapter.data.sha256).toBe(first.adapter.data.sha256);
  });

  test("a reference is taken by its hash and checked against its files", async () => {
    using folder = new Folder();
    const [path = ""] = three(folder);
    const reference = await dirRef(path);
    const { adapter } = await merge(
      { adapters: [{ path: reference }], method: "linear" },
      makeCall(folder),
    );
    expect(adapter.data.files.map(({ name }) => name)).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "merge_provenance.json",
      "merge_report.json",
    ]);
    const provenance = readJson(join(adapter.data.path, "merge_provenance.json"));
    const inputs = provenance["inputs"] as Record<string, string>[];
    expect(inputs[0]?.[WEIGHTS]).toBe(
      reference.data.files.find(({ name }) => name === WEIGHTS)?.sha256,
    );

    const bytes = readFileSync(join(path, WEIGHTS));
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    writeFileSync(join(path, WEIGHTS), bytes);
    const call = makeCall(folder);
    const input = { adapters: [{ path: reference }], method: "linear" as const, lambda: 3 };
    await expect(merge(input, call)).rejects.toMatchObject({
      code: "FILE_INVALID",
      reason: "hash",
    });
    expect(filesBelow(call.outputFolder)).toEqual([]);
  });

  test("the dtype of the output is that of the first input, or the one asked for", async () => {
    using folder = new Folder();
    const path = normalAdapter(folder.in("a"), { seed: "a", dtype: "BF16" });
    const dtypes = [];
    for (const dtype of ["auto", "float32", "float16"] as const) {
      const { adapter } = await merge(
        { adapters: [{ path }], method: "cat", dtype },
        makeCall(folder),
      );
      using file = SafetensorsFile.open(join(adapter.data.path, WEIGHTS));
      dtypes.push(...new Set([...file.header.tensors.values()].map((info) => info.dtype)));
      expect(relativeError(deltaOf(adapter.data.path, MODULE), deltaOf(path, MODULE))).toBeLessThan(
        0.01,
      );
    }
    expect(dtypes).toEqual(["BF16", "F32", "F16"]);
  });

  test("a dry run says what would be made and reads no tensor", async () => {
    using folder = new Folder();
    const adapters = three(folder).map((path) => ({ path }));
    const call = makeCall(folder);
    const answer = await plan({ adapters, method: "ties" }, call);
    expect(answer).toMatchObject({ space: "dense", output_bytes: 2 * 14 * (24 + 32) * 4 });
    expect(answer.modules[0]).toEqual({
      module: MODULE,
      inputs: 32,
      outputs: 24,
      ranks: [4, 8, 2],
      rank: 14,
    });
    expect(filesBelow(call.outputFolder)).toEqual([]);
  });

  test("progress names every module once and ends at 1", async () => {
    using folder = new Folder();
    const adapters = three(folder).map((path) => ({ path }));
    const call = makeCall(folder);
    await merge({ adapters }, call);
    expect(call.steps.map(([fraction]) => fraction)).toEqual([0.5, 1]);
  });
});

describe("cancelling", () => {
  test("ends a merge in the middle of a module and leaves nothing", async () => {
    using folder = new Folder();
    const big = { modules: ["one", "two", "three"], outputs: 1200, inputs: 1500, rank: 16 };
    const adapters = ["a", "b"].map((seed) => ({
      path: normalAdapter(folder.in(seed), { seed, ...big }),
    }));
    const controller = new AbortController();
    const options = { signal: controller.signal, onProgress: () => controller.abort() };
    const call = makeCall(folder, options);
    const running = merge({ adapters, threads: 1 }, call);
    await expect(running).rejects.toMatchObject({ code: "CAPABILITY_CANCELLED" });
    expect(call.steps).toHaveLength(1);
    expect(filesBelow(call.outputFolder)).toEqual([]);
  });
});

describe("values that are not finite", () => {
  function withNaN(folder: Folder): { path: string }[] {
    const b = normal([6, 2], "b");
    const a = tensor([2, 4], [1, 2, NaN, 4, 5, 6, 7, 8]);
    const fine = { a: normal([2, 4], "a"), b };
    return [
      { path: writeAdapter(folder.in("bad"), { modules: { m: { a, b }, n: fine } }) },
      { path: writeAdapter(folder.in("good"), { modules: { m: fine, n: fine } }) },
    ];
  }

  test.for([
    { method: "ties" },
    { method: "linear" },
    { method: "cat" },
    { method: "ties", compat: "peft" },
  ] as const)("are refused with the tensor's name: $method $compat", async (recipe) => {
    using folder = new Folder();
    const call = makeCall(folder);
    await expect(merge({ adapters: withNaN(folder), ...recipe }, call)).rejects.toMatchObject({
      code: "FILE_INVALID",
      reason: "non_finite",
      details: { tensor: "base_model.model.m.lora_A.weight" },
    });
    expect(filesBelow(call.outputFolder)).toEqual([]);
  });

  test.for([
    { method: "ties" },
    { method: "linear" },
    { method: "cat" },
    { method: "ties", compat: "peft" },
  ] as const)("are propagated by name where that is asked for: $method $compat", async (recipe) => {
    using folder = new Folder();
    const input = { adapters: withNaN(folder), nonfinite: "propagate", ...recipe } as const;
    const { adapter, report } = await merge(input, makeCall(folder));
    expect(report.non_finite).toEqual(["base_model.model.m.lora_A.weight"]);
    expect(deltaOf(adapter.data.path, "m").some(Number.isNaN)).toBe(true);
    expect(deltaOf(adapter.data.path, "n").every(Number.isFinite)).toBe(true);
  });
});
