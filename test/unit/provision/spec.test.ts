import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  capabilityEntrySchema,
  hostPackage,
  loadConfig,
  type ResolvedConfig,
} from "../../../src/config/index.ts";
import { specOf } from "../../../src/provision/spec.ts";
import { moduleOfPackage, pipSteps, pythonStart } from "../../../src/provision/python-worker.ts";
import type { EnvironmentSpec } from "../../../src/provision/kind.ts";

let project = "";
let config: ResolvedConfig;
beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "cjm-spec-"));
  config = await loadConfig({ cwd: project, env: {} });
});
afterEach(() => rm(project, { recursive: true }));

const spec = (entry: object, in_ = config, source?: string): EnvironmentSpec =>
  specOf(capabilityEntrySchema.parse({ name: "tool", ...entry }), in_, source);

describe("specOf", () => {
  test("takes npm for a folder with package.json and venv for another", async () => {
    await mkdir(join(project, "js"));
    await writeFile(join(project, "js/package.json"), "{}");
    expect(spec({ path: "js" })).toMatchObject({ kind: "npm", sourceDir: join(project, "js") });
    expect(spec({ path: "py" }).kind).toBe("venv");
    expect(spec({ path: "js", entry: "main:Tool" }).kind).toBe("venv");
  });

  test("takes npm for a bare package and Python for an entry of the original", () => {
    expect(spec({ package: "@tools/tool@1.2.0" }).kind).toBe("npm");
    expect(spec({ package: "tool", python_version: "3.12" })).toMatchObject({
      kind: "venv",
      isOriginal: true,
    });
    expect(spec({ package: "tool", env_name: "tool", env_file: "env.yml" })).toMatchObject({
      kind: "conda",
      environmentFile: join(project, "env.yml"),
    });
  });

  test("takes conda for Python where the project configures a conda runtime", async () => {
    await writeFile(join(project, "cjm.yaml"), "runtime:\n  conda_type: micromamba\n");
    const withRuntime = await loadConfig({ cwd: project, env: {} });
    expect(spec({ package: "tool", env_name: "tool" }, withRuntime).kind).toBe("conda");
    expect(spec({ package: "tool", env_name: "tool", env: "venv" }, withRuntime).kind).toBe("venv");
  });

  test("makes paths relative to capabilities.yaml absolute, editable ones too", () => {
    expect(spec({ package: "./tool", env: "venv" }).entry.package).toBe(join(project, "tool"));
    expect(spec({ package: "-e ./tool", env: "venv" }).entry.package).toBe(
      `-e ${join(project, "tool")}`,
    );
    expect(spec({ package: "git+https://host/x.git" }).entry.package).toBe(
      "git+https://host/x.git",
    );
  });

  test("takes the compiled folder of a worker that this package ships", () => {
    const { root } = hostPackage();
    expect(spec({ path: join(root, "workers", "none") }).compiledDir).toBeUndefined();
    expect(spec({ path: "workers/none" }).compiledDir).toBeUndefined();
  });
});

describe("pipSteps", () => {
  test("installs the original's SDK, interface and adapter libraries and the package together", () => {
    const original = spec({
      package: "cjm-capability-x>=0.1",
      env_name: "x",
      interface_libs: ["cjm-media-interface"],
      adapters: [{ lib: "-e ./adapter", impl: "adapter:Adapter" }],
    });
    expect(pipSteps(original)).toEqual([
      [
        "cjm-substrate",
        "cjm-media-interface",
        "-e",
        join(project, "adapter"),
        "cjm-capability-x>=0.1",
      ],
    ]);
  });

  test("installs a requirements file by itself, so that its hashes can be checked", async () => {
    await mkdir(join(project, "py"));
    await writeFile(join(project, "py/requirements.lock"), "");
    expect(pipSteps(spec({ path: "py", interface_libs: ["x"] }))).toEqual([
      ["-r", join(project, "py/requirements.lock")],
      ["x"],
    ]);
    expect(pipSteps(spec({ path: "py", requirements: ["a==1", "b==2"] }))).toEqual([
      ["a==1", "b==2"],
    ]);
  });

  test("installs another SDK where one is named", () => {
    const tool = spec({ path: "py", entry: "tool:Tool" }, config, "-e /sdk");
    expect(pipSteps(tool)).toEqual([["-e", "/sdk"]]);
  });
});

describe("a Python worker", () => {
  test("is started by module and class, or by its file", () => {
    const python = "/env/bin/python";
    expect(pythonStart(spec({ path: "py", entry: "tool.main:Tool" }), "/env")).toEqual({
      command: [python, "-m", "cjm_worker", "tool.main:Tool"],
      introspect: [python, "-m", "cjm_worker.introspect", "tool.main:Tool"],
      pythonPath: python,
    });
    expect(pythonStart(spec({ path: "py" }), "/env").command).toEqual([
      python,
      "/env/worker/main.py",
    ]);
  });

  test.each([
    ["cjm-capability-x>=0.0.27", "cjm_capability_x"],
    ["cjm-capability-x[gpu]==1", "cjm_capability_x"],
    ["git+https://host/group/cjm-tool.git", "cjm_tool"],
    ["git+https://host/group/cjm-tool.git@v1.0#egg=x", "cjm_tool"],
    ["git+ssh://git@host/group/cjm-tool", "cjm_tool"],
    ["-e /work/cjm-tool", "cjm_tool"],
    ["/work/cjm-tool/", "cjm_tool"],
  ])("of the original's package %s is in module %s", (name, module) => {
    expect(moduleOfPackage(name)).toBe(module);
  });
});
