import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadConfig, loadManifests, type ResolvedConfig } from "../../../src/config/index.ts";
import {
  environmentStatus,
  generateAdapterManifest,
  hostLibraries,
  installAll,
  regenerateManifest,
  removeCapability,
} from "../../../src/provision/index.ts";

const FIXTURES = fileURLToPath(new URL("../../fixtures/projects/greeters", import.meta.url));
const env = { ...process.env, NODE_OPTIONS: "--conditions=@cjm/source" };

let project = "";
let config: ResolvedConfig;
beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "cjm-installed-"));
  await cp(FIXTURES, project, { recursive: true });
  await writeFile(join(project, "cjm.yaml"), "substrate:\n  pass_env: [NODE_OPTIONS]\n");
  await writeFile(
    join(project, "capabilities.yaml"),
    "capabilities:\n  - name: in-place\n    path: in-place\n    env: path\n  - name: py-greeter\n    path: py-greeter\n    entry: py_greeter:Greeter\n",
  );
  config = await loadConfig({ cwd: project, env: {} });
});
afterEach(() => rm(project, { recursive: true, force: true }));

async function installed(): Promise<string[]> {
  const { capabilities } = await loadManifests([join(project, ".cjm/manifests")]);
  return [...capabilities.keys()].sort();
}
const states = async (): Promise<Record<string, string>> =>
  Object.fromEntries(
    (await environmentStatus(config, env)).map(({ name, state }) => [name, state]),
  );

describe("an installed capability", () => {
  test("is ready, stale, broken or not installed, and the look changes nothing", async () => {
    expect(await states()).toEqual({ "in-place": "not_installed", "py-greeter": "not_installed" });
    expect(existsSync(join(project, ".cjm"))).toBe(false);
    const [, python] = await installAll({ config, env });
    expect(await states()).toEqual({ "in-place": "ready", "py-greeter": "ready" });
    await writeFile(join(project, "in-place/more.js"), "");
    await rm(join(python?.folder ?? "", "worker/py_greeter.py"));
    expect(await states()).toEqual({ "in-place": "stale", "py-greeter": "broken" });
    await writeFile(join(project, "capabilities.yaml"), "capabilities: []\n");
    expect(await states()).toEqual({ "in-place": "unlisted", "py-greeter": "unlisted" });
  });

  test("is described again without being installed again", async () => {
    await installAll({ config, env, only: ["in-place"] });
    const path = join(project, ".cjm/manifests/in-place.json");
    const before = JSON.parse(await readFile(path, "utf8")) as { install: object };
    const main = join(project, "in-place/main.js");
    const text = await readFile(main, "utf8");
    await writeFile(main, text.replace('version: "0.1.0"', 'version: "0.2.0"'));
    expect(await regenerateManifest("in-place", { config, env })).toBe(path);
    const after = JSON.parse(await readFile(path, "utf8")) as { install: object };
    expect(after.install).toEqual(before.install);
    expect(after).toMatchObject({ code: { version: "0.2.0" } });
    await expect(regenerateManifest("in-plac", { config, env })).rejects.toThrow(
      'did you mean "in-place"?',
    );
  });

  test("has adapters described in its own environment", async () => {
    await writeFile(
      join(project, "py-greeter/adapter.py"),
      "from cjm_worker import TaskAdapter\n\n\nclass Greets(TaskAdapter):\n    task_name = 'greeting'\n",
    );
    await installAll({ config, env, only: ["py-greeter"] });
    const { path, manifest } = await generateAdapterManifest("py-greeter", "adapter:Greets", {
      config,
      env,
    });
    expect(path).toBe(join(project, ".cjm/manifests/adapter-greeting-Greets.json"));
    expect(manifest).toMatchObject({ name: "adapter.Greets", task_name: "greeting" });
    expect((await loadManifests([join(project, ".cjm/manifests")])).adapters.size).toBe(1);
    await expect(
      generateAdapterManifest("py-greeter", "adapter:Missing", { config, env }),
    ).rejects.toThrow("Missing");
  });

  test("is removed with its environment, or without it", async () => {
    const [, python] = await installAll({ config, env });
    const kept = await removeCapability("in-place", { config, keepEnvironment: true });
    expect(kept.manifests).toEqual([join(project, ".cjm/manifests/in-place.json")]);
    const removed = await removeCapability("py-greeter", { config });
    expect(removed.folders).toEqual([python?.folder]);
    expect(existsSync(python?.folder ?? "")).toBe(false);
    expect(await installed()).toEqual([]);
    await expect(removeCapability("py-greeter", { config })).rejects.toMatchObject({
      code: "CAPABILITY_NOT_INSTALLED",
    });
  });
});

describe("hostLibraries", () => {
  test("tells npm packages from Python ones and leaves out the SDK", async () => {
    await writeFile(
      join(project, "capabilities.yaml"),
      "capabilities:\n  - name: a\n    path: js-greeter\n    interface_libs: [zod, cjm-substrate]\n  - name: b\n    package: b\n    env_name: b\n    interface_libs: [cjm-media-interface, cjm-substrate>=0.1]\n",
    );
    expect(await hostLibraries(config)).toEqual({ npm: ["zod"], python: ["cjm-media-interface"] });
  });
});
