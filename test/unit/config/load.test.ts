import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { configKeys, loadConfig } from "../../../src/config/index.ts";
import { CjmError } from "../../../src/errors/index.ts";

let folder = "";
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "cjm-config-")));
});
afterEach(() => rm(folder, { recursive: true }));

const write = (text: string): Promise<void> => writeFile(join(folder, "cjm.yaml"), text);
const failureOf = async (work: Promise<unknown>): Promise<CjmError> => {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof CjmError) return error;
  throw new Error("expected a CjmError", { cause: error });
};

describe("loadConfig", () => {
  test("fills every default where there is no file", async () => {
    const config = await loadConfig({ cwd: folder, configPath: undefined, env: {} });
    expect(config).toMatchObject({
      dataDir: join(folder, ".cjm"),
      capabilitiesConfig: join(folder, "capabilities.yaml"),
      modelsDir: undefined,
      runtime: { mode: "system", condaType: "conda", binaries: {} },
      queue: { maxConcurrentLanes: 4, cancelTimeoutSeconds: 3, maxRetries: 1, admission: "wait" },
      substrate: { prefetchStallThresholdSeconds: 60, diagnosticsRetentionDays: 30 },
    });
  });

  test("finds cjm.yaml upwards and resolves its paths against the file", async () => {
    await write(
      "data_dir: state\nmodels_dir: ../models\nruntime:\n  binaries:\n    linux-x64: bin/mm\n",
    );
    const below = join(folder, "a", "b");
    await mkdir(below, { recursive: true });
    const config = await loadConfig({ cwd: below, env: {} });
    expect(config.configPath).toBe(join(folder, "cjm.yaml"));
    expect(config.dataDir).toBe(join(folder, "state"));
    expect(config.modelsDir).toBe(join(folder, "..", "models"));
    expect(config.runtime.binaries).toEqual({ "linux-x64": join(folder, "bin/mm") });
  });

  test("lets the command line win over the environment, and that over the file", async () => {
    await write(
      "data_dir: from-file\nqueue:\n  max_concurrent_lanes: 2\n  max_retries: 5\nruntime:\n  conda_type: miniforge\n",
    );
    const config = await loadConfig({
      cwd: folder,
      env: {
        CJM_DATA_DIR: "from-env",
        CJM_QUEUE_MAX_CONCURRENT_LANES: "8",
        CJM_CONDA_TYPE: "micromamba",
        CJM_SUBSTRATE_PASS_ENV: "HF_*, TOKEN",
        CJM_SUBSTRATE_DRIFT_DETECTION: "false",
      },
      flags: { data_dir: "from-flag" },
    });
    expect(config.dataDir).toBe(join(folder, "from-flag"));
    expect(config.queue).toMatchObject({ maxConcurrentLanes: 8, maxRetries: 5 });
    expect(config.runtime.condaType).toBe("micromamba");
    expect(config.substrate).toMatchObject({ passEnv: ["HF_*", "TOKEN"], driftDetection: false });
    expect(config.sources).toMatchObject({
      data_dir: "--data-dir",
      "queue.max_concurrent_lanes": "$CJM_QUEUE_MAX_CONCURRENT_LANES",
      "queue.max_retries": join(folder, "cjm.yaml"),
      "runtime.conda_type": "$CJM_CONDA_TYPE",
    });
  });

  test("names every problem of a bad file at once, with line, column and key", async () => {
    await write("data_dir: 3\nqueue:\n  max_concurent_lanes: 4\n  max_retries: -1\nsubstrat: {}\n");
    const error = await failureOf(loadConfig({ cwd: folder, env: {} }));
    const file = join(folder, "cjm.yaml");
    expect(error.code).toBe("FILE_INVALID");
    expect(error.message.split("\n").sort()).toEqual([
      `${file}:1:1: data_dir: expected string, received number`,
      `${file}:3:3: queue.max_concurent_lanes: unknown key; did you mean "max_concurrent_lanes"?`,
      `${file}:4:3: queue.max_retries: Too small: expected number to be >=0`,
      `${file}:5:1: substrat: unknown key; did you mean "substrate"?`,
    ]);
    expect(error.fieldsInvalid).toHaveLength(4);
  });

  test("names the variable and the flag that are wrong", async () => {
    const error = await failureOf(
      loadConfig({
        cwd: folder,
        env: { CJM_QUEUE_MAX_RETRIES: "many" },
        flags: { "runtime.conda_type": "poetry" },
      }),
    );
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toContain("$CJM_QUEUE_MAX_RETRIES: queue.max_retries: expected number");
    expect(error.message).toContain("--conda-type: runtime.conda_type:");
  });

  test("treats a key without a value as not set", async () => {
    await write("models_dir:\nsubstrate:\n");
    const config = await loadConfig({ cwd: folder, env: {} });
    expect(config.modelsDir).toBeUndefined();
  });

  test("refuses a file that is named and not there, and one that is no mapping", async () => {
    const missing = loadConfig({ cwd: folder, configPath: "none.yaml", env: {} });
    expect((await failureOf(missing)).message).toBe(`${join(folder, "none.yaml")}: no such file`);
    await write("- a\n- b\n");
    expect((await failureOf(loadConfig({ cwd: folder, env: {} }))).code).toBe("FILE_INVALID");
  });

  test("gives every key a variable of its own", () => {
    const variables = configKeys().flatMap((key) => key.variables);
    expect(new Set(variables).size).toBe(variables.length);
    expect(variables).toContain("CJM_CONDA_PREFIX");
    expect(configKeys().every(({ schema }) => typeof schema["description"] === "string")).toBe(
      true,
    );
  });
});
