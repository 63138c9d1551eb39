import { utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { recordedDrift } from "../../../src/cli/drift.ts";
import { loadManifests } from "../../../src/config/index.ts";
import type { Pipeline } from "../../../src/index.ts";
import { containing, failure, Project, rows, run, until } from "./support.ts";

const ALL = { failFast: false };

let project: Project;
let pipeline: Pipeline;

beforeAll(async () => {
  // Asks the fixture what it is once, for every test.
  await using warm = await Project.create();
  await warm.add("life");
});
beforeEach(async () => {
  project = await Project.create();
  await project.add("life");
  await project.addRaw("crash-on-start", "crash");
  pipeline = await project.open();
});
afterEach(async () => {
  await pipeline[Symbol.asyncDispose]();
  await project[Symbol.asyncDispose]();
});

/** Another host over the same data directory. */
async function reopen(): Promise<void> {
  await pipeline[Symbol.asyncDispose]();
  pipeline = await project.open();
}

const configOf = (id: string): unknown => pipeline.manager.instance(id).spec.config;

describe("loading", () => {
  test("several at once gives every outcome, or the first failure and nothing more begun", async () => {
    const requests = [
      { capability: "life", instanceId: "one" },
      { capability: "crash" },
      { capability: "life", newInstance: true },
    ];
    const attempts = await pipeline.manager.loadAll(requests, { ...ALL, maxConcurrent: 2 });
    expect(attempts.map(({ error }) => error === undefined)).toEqual([true, false, true]);
    expect(attempts[1]?.error).toMatchObject({ code: "WORKER_EXITED" });
    const ids = [...pipeline.manager.instances.keys()];
    expect(ids).toEqual(["one", expect.stringMatching(/^life-[0-9a-f]{6}$/u)]);
    const again = pipeline.manager.loadAll(
      [{ capability: "crash" }, { capability: "life", instanceId: "later" }],
      { maxConcurrent: 1 },
    );
    expect(await failure(again)).toMatchObject({ code: "WORKER_EXITED" });
    expect(pipeline.manager.instances.has("later")).toBe(false);
    const gone = await pipeline.manager.unloadAll(undefined, ALL);
    expect(gone.map(({ value }) => value)).toEqual([true, true]);
    expect(pipeline.manager.instances.size).toBe(0);
  });

  test("twice is one worker; with another config, or a bad id, it is refused", async () => {
    const load = { capability: "life", config: { model: "big" } };
    const [first, second] = await Promise.all([
      pipeline.manager.load(load),
      pipeline.manager.load(load),
    ]);
    expect(first).toBe(second);
    expect(await rows(pipeline, "worker_spawned")).toHaveLength(1);
    const other = pipeline.manager.load({ capability: "life", config: { model: "other" } });
    expect(await failure(other)).toMatchObject({ code: "INSTANCE_INVALID" });
    for (const instanceId of ["", "a b", "../up", "x".repeat(65)]) {
      const bad = pipeline.manager.load({ capability: "life", instanceId });
      expect(await failure(bad)).toMatchObject({ fieldsInvalid: ["instance_id"] });
    }
  });

  test("names every bad key of a config at once, before anything is started", async () => {
    const config = { modle: "big", voice: 3, prefetch: "sometimes" };
    expect(await failure(pipeline.manager.load({ capability: "life", config }))).toMatchObject({
      code: "CONFIG_INVALID",
      fieldsInvalid: ["modle", "voice", "prefetch"],
      message: containing('did you mean "model"?'),
    });
    expect(await rows(pipeline, "worker_spawned")).toEqual([]);
  });

  test("a kept key the schema does not have, or allow, any more is dropped with a warning", async () => {
    await pipeline.manager.load({ capability: "life", config: { prefix: ">", voice: "loud" } });
    const { config_schema: schema } = pipeline.manager.registry.definition("life").manifest.code;
    const properties = { prefix: { type: "string" }, voice: { type: "integer", default: 1 } };
    await pipeline[Symbol.asyncDispose]();
    await project.add("life", { code: { config_schema: { ...schema, properties } } });
    pipeline = await project.open();
    expect(configOf("life")).toEqual({ prefix: ">", voice: 1 });
    await pipeline.diagnostics.flush();
    const warnings = await pipeline.diagnostics.queryRecords({ level: "warning" });
    expect(warnings.map(({ message }) => message)).toContainEqual(
      containing("config keys left out: "),
    );
  });
});

describe("config", () => {
  test("changes go through the worker, which releases only what changed; they are kept", async () => {
    await pipeline.manager.load({ capability: "life", config: { prefix: ">" } });
    await pipeline.manager.updateConfig("life", { model: "big" });
    expect(await run(pipeline, "life", "events")).toEqual([
      "initialize tiny",
      "release model",
      "initialize big",
    ]);
    expect(await rows(pipeline, "worker_spawned")).toHaveLength(1);
    const phases = (await rows(pipeline, "config_applied")).map(({ payload }) => payload["phase"]);
    expect(phases).toEqual(["initialize", "load", "reconfigure"]);
    expect(await failure(pipeline.manager.updateConfig("life", { modle: 1 }))).toMatchObject({
      code: "CONFIG_INVALID",
      fieldsInvalid: ["modle"],
    });
    await reopen();
    expect(configOf("life")).toMatchObject({ model: "big", prefix: ">" });
    await pipeline.manager.unload("life");
    await pipeline.manager.load({ capability: "life", config: { voice: "loud" } });
    expect(configOf("life")).toMatchObject({ model: "big", prefix: ">", voice: "loud" });
  });

  test("of a generated instance is not kept", async () => {
    const load = { capability: "life", newInstance: true, config: { model: "big" } };
    await pipeline.manager.load(load);
    await reopen();
    expect(configOf("life")).toMatchObject({ model: "tiny" });
  });

  test("has live options, and none where the worker fails to say", async () => {
    const options = await pipeline.manager.getConfigOptions("life");
    expect(options).toEqual({ model: { options: [{ value: "tiny", label: "Tiny" }] } });
    await pipeline.manager.updateConfig("life", { options_fail: true });
    expect(await pipeline.manager.getConfigOptions("life")).toEqual({});
  });
});

test("a disabled instance takes no job, runs its hook when its work is over, and stays disabled", async () => {
  await pipeline.manager.load({ capability: "life" });
  const held = await pipeline.queue.submit("life", {}, { action: "hold" });
  const instance = pipeline.manager.instance("life");
  await until(() => instance.calls.size === 1);
  await pipeline.manager.disable("life");
  expect(await failure(run(pipeline, "life", "events"))).toMatchObject({
    code: "CAPABILITY_DISABLED",
  });
  const { connection } = await instance.ensureReady();
  const call = { kwargs: { action: "events" } };
  expect((await connection.post("/execute", call, z.unknown())).value).not.toContain("disabled");
  await connection.post("/execute", { kwargs: { action: "let_go" } }, z.unknown());
  expect(await held.result()).toBe("let go");
  await instance.hooksSettled();
  expect((await connection.post("/execute", call, z.unknown())).value).toContain("disabled");
  await reopen();
  expect(pipeline.manager.isEnabled("life")).toBe(false);
  await pipeline.manager.enable("life");
  expect(await run(pipeline, "life", "events")).toEqual(["initialize tiny"]);
});

test("a reload takes the newest manifest and a new worker, and keeps the config", async () => {
  await pipeline.manager.load({ capability: "life", config: { model: "big" } });
  const before = pipeline.manager.instance("life").pid;
  await project.add("life", { code: { version: "2" } });
  await pipeline.manager.reload("life");
  const { spec, pid } = pipeline.manager.instance("life");
  expect(spec.definition.manifest.code.version).toBe("2");
  expect(spec.config).toMatchObject({ model: "big" });
  expect(pid).not.toBe(before);
});

describe("drift", () => {
  test("is none for a worker that is what its manifest says", async () => {
    const instance = await pipeline.manager.load({ capability: "life" });
    expect(instance.drift).toEqual([]);
  });

  test("is flagged at load, in the journal too, and the instance still serves", async () => {
    const schema = { type: "object", properties: {}, additionalProperties: true };
    const surface = { methods: [{ name: "fly", params: [] }], properties: [] };
    const hash = `sha256:${"0".repeat(64)}`;
    await project.add("life", {
      code: { config_schema: schema, structural_surface: surface },
      drift_tracking: { config_schema_hash: hash },
    });
    await pipeline.manager.registry.discover();
    const instance = await pipeline.manager.load({ capability: "life" });
    expect(instance.drift).toEqual(["config_schema", "structural_surface"]);
    const [ready] = await rows(pipeline, "worker_ready");
    expect(ready?.payload["drift"]).toEqual(["config_schema", "structural_surface"]);
    expect(await run(pipeline, "life", "events")).toEqual(["initialize tiny"]);
    const { capabilities } = await loadManifests([project.manifests]);
    const drift = await recordedDrift(join(project.folder, "data"), capabilities.values());
    expect(drift.get("life")).toEqual(["config_schema", "structural_surface"]);
    // Once the manifest is written anew nobody has looked yet.
    await utimes(
      join(project.manifests, "life.json"),
      Date.now() / 1000 + 60,
      Date.now() / 1000 + 60,
    );
    expect((await recordedDrift(join(project.folder, "data"), capabilities.values())).size).toBe(0);
  });
});

test("a capability that names other platforms is refused by name", async () => {
  await project.add("life", { code: { name: "elsewhere", resources: { platforms: ["win-x64"] } } });
  await pipeline.manager.registry.discover();
  expect(await failure(pipeline.manager.load({ capability: "elsewhere" }))).toMatchObject({
    code: "CAPABILITY_NOT_INSTALLED",
    message: containing("win-x64"),
  });
});

describe("task adapters", () => {
  async function addAdapter(
    name: string,
    members: unknown,
    methods?: readonly string[],
  ): Promise<void> {
    const manifest = {
      unit: "adapter",
      name,
      task_name: "greeting",
      module: join(import.meta.dirname, "../../fixtures/workers/greeting-adapter.ts"),
      class: "greeting",
      protocol_members: members,
      ...(methods !== undefined && { methods }),
    };
    await writeFile(join(project.manifests, `${name}.json`), JSON.stringify(manifest));
    await pipeline.manager.registry.discover();
  }

  beforeEach(async () => {
    await project.add("echo");
    await addAdapter("greeter", { methods: [{ name: "say", params: ["text"] }] });
    await addAdapter("singer", {
      methods: [{ name: "sing" }, { name: "say", params: ["text", "tune"] }],
      properties: ["pitch"],
    });
  });

  test("are matched against what is recorded, with everything that is missing", () => {
    const { registry } = pipeline.manager;
    const names = registry.adaptersForTask("greeting").map(({ name }) => name);
    expect(names).toEqual(["greeter", "singer"]);
    expect(registry.capabilitiesFor("greeter")).toEqual(["echo"]);
    expect(registry.checkAdapter("greeter", "echo").compatible).toBe(true);
    expect(registry.checkAdapter("singer", "echo")).toEqual({
      compatible: false,
      missingMethods: ["sing"],
      missingProperties: ["pitch"],
      paramMismatches: [{ method: "say", required: ["text", "tune"], found: ["text"] }],
      reason:
        "missing methods: sing; missing properties: pitch; say(text) does not begin with (text, tune)",
    });
    expect(registry.checkAdapter("greeter", "crash").reason).toContain("no structural surface");
  });

  test("that fit bind by themselves, serve their task, and are journaled", async () => {
    const instance = await pipeline.manager.load({ capability: "echo" });
    expect(instance.spec.adapters.map(({ name }) => name)).toEqual(["greeter"]);
    const handle = await pipeline.queue.submit(
      "echo",
      { who: "Ada" },
      { task: "greeting", method: "greet" },
    );
    expect(await handle.result()).toEqual({ text: "hello Ada" });
    const [bound] = await rows(pipeline, "adapter_bound");
    expect(bound?.payload["specs"]).toEqual([containing("greeting-adapter.ts:greeting")]);
    const accounts = await rows(pipeline, "task_account");
    expect(accounts[0]?.payload).toMatchObject({ task: "greeting", method: "greet", ok: true });
  });

  test("that name their methods have their calls checked before anything is sent", async () => {
    await addAdapter("greeter", { methods: [{ name: "say" }] }, ["greet"]);
    await pipeline.manager.load({ capability: "echo" });
    const { bindings } = pipeline;
    expect(await bindings["echo"]?.tasks["greeting"]?.["greet"]?.({ who: "Bo" })).toEqual({
      text: "hello Bo",
    });
    expect(await bindings["echo"]?.["say"]?.({ text: "as before" })).toEqual({ text: "as before" });
    const target = { task: "greeting", method: "great" };
    expect(await failure(pipeline.queue.submit("echo", { who: "Ada" }, target))).toMatchObject({
      code: "ACTION_UNKNOWN",
      message: containing('did you mean "greet"?'),
    });
    const handle = await pipeline.queue.submit(
      "echo",
      { who: "Ada" },
      { ...target, method: "greet" },
    );
    expect(await handle.result()).toEqual({ text: "hello Ada" });
    const { greet } = pipeline.bindings["echo"]?.tasks["greeting"] ?? {};
    expect(await greet?.({ who: "Eve" })).toEqual({ text: "hello Eve" });
  });

  test("asked for by name are refused loudly with the missing members", async () => {
    const load = pipeline.manager.load({ capability: "echo", adapters: ["singer"] });
    expect(await failure(load)).toMatchObject({
      code: "ADAPTER_INCOMPATIBLE",
      message: containing("missing methods: sing"),
    });
    const none = pipeline.manager.load({ capability: "echo", adapters: ["nobody"] });
    expect(await failure(none)).toMatchObject({ code: "ADAPTER_INCOMPATIBLE" });
    const bare = await pipeline.manager.load({ capability: "echo", adapters: [] });
    expect(bare.spec.adapters).toEqual([]);
  });
});
