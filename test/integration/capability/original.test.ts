import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Pipeline } from "../../../src/index.ts";
import { identify, isAlive, runFolderPath } from "../../../src/process/index.ts";
import { findPython } from "../../../src/provision/index.ts";
import { containing, failure, Project, rows, run, until } from "./support.ts";

const FIXTURE = join(import.meta.dirname, "../../fixtures/original");
const PACKAGE = "cjm-substrate";

/** A Python with the published package, or why there is none. */
async function provide(folder: string): Promise<{ python: string } | { reason: string }> {
  try {
    const base = await findPython("3.12", process.env);
    await promisify(execFile)(base.executable, ["-m", "venv", folder]);
    const python = join(folder, "bin/python");
    await promisify(execFile)(python, ["-m", "pip", "install", "-q", PACKAGE]);
    return { python };
  } catch (error) {
    return { reason: String(error instanceof Error ? error.message : error).slice(0, 200) };
  }
}

const home = await mkdtemp(join(tmpdir(), "cjm-o-"));
const provided = await provide(join(home, "venv"));
const reason = "reason" in provided ? provided.reason : "";
if (reason !== "") console.warn(`The published package's worker is not tested: ${reason}`);

describe.skipIf(reason !== "")(
  "a worker of the published Python package (needs Python 3.12 and that package)",
  () => {
    let project: Project;
    let pipeline: Pipeline;

    beforeAll(async () => {
      project = await Project.create();
      await writeOriginal(project, "python" in provided ? provided.python : "");
      pipeline = await project.open();
    });
    afterAll(async () => {
      await pipeline[Symbol.asyncDispose]();
      await project[Symbol.asyncDispose]();
    });

    test("executes with its config, logs and reports its usage", async () => {
      await pipeline.manager.load({ capability: "foreign", config: { factor: 2 } });
      const handle = await pipeline.queue.submit("foreign", { text: "hi" });
      expect(await handle.result()).toEqual({ text: "hi", config: { factor: 2 } });
      await until(async () => {
        await pipeline.diagnostics.flush();
        const records = await pipeline.diagnostics.queryRecords({ jobId: handle.id });
        return records.some(({ message }) => message === "echoing hi");
      });
    });

    test("does not drift for the way its language prints a number", async () => {
      expect(pipeline.manager.instance("foreign").drift).toEqual([]);
      expect(await rows(pipeline, "worker_ready")).toHaveLength(1);
    });

    test("gets a file by its path", async () => {
      const path = join(project.folder, "five.txt");
      await writeFile(path, "12345");
      const sha256 = `sha256:${createHash("sha256").update("12345").digest("hex")}`;
      const file = { __wire__: "file.ref", data: { path, size: 5, sha256 } };
      expect(await run(pipeline, "foreign", "size", { file })).toBe(5);
    });

    test("streams, and its failure in a stream is typed", async () => {
      const chunks: unknown[] = [];
      for await (const chunk of await pipeline.queue.submitStream("foreign", { count: 2 })) {
        chunks.push(chunk);
      }
      expect(chunks).toEqual([{ n: 0 }, { n: 1 }]);
      const failing = await pipeline.queue.submitStream(
        "foreign",
        { count: 1 },
        { action: "fail", maxRetries: 0 },
      );
      const reading = (async () => {
        for await (const _ of failing) continue;
      })();
      expect(await failure(reading)).toMatchObject({
        code: "CAPABILITY_TRANSIENT",
        message: containing("the line is dead"),
      });
    });

    test("reports its progress and ends a call that is cancelled", async () => {
      const handle = await pipeline.queue.submit("foreign", {}, { action: "wait" });
      await until(
        async () => (await pipeline.queue.getJob(handle.id))?.statusMessage === "waiting",
      );
      expect(await pipeline.queue.cancel(handle.id)).toBe(true);
      expect(await failure(handle.result())).toMatchObject({ code: "CAPABILITY_CANCELLED" });
      const { status } = (await pipeline.queue.getJob(handle.id)) ?? {};
      expect(status).toBe("cancelled");
    });

    test.each([
      ["user_input", "CAPABILITY_INPUT"],
      ["transient", "CAPABILITY_TRANSIENT"],
      ["resource", "CAPABILITY_RESOURCE"],
      ["fatal", "CAPABILITY_ERROR"],
      ["bare", "CAPABILITY_INPUT"],
    ])("raises %s as %s", async (action, code) => {
      const handle = await pipeline.queue.submit("foreign", {}, { action, maxRetries: 0 });
      expect(await failure(handle.result())).toMatchObject({ code });
    });

    test("serves a task adapter that was matched by the recorded surface, and accounts for it", async () => {
      const handle = await pipeline.queue.submit(
        "foreign",
        { text: "hi" },
        { task: "echoing", method: "say" },
      );
      expect(await handle.result()).toEqual({ text: "HI" });
      const accounts = await rows(pipeline, "task_account");
      expect(accounts[0]?.payload).toMatchObject({ task: "echoing", method: "say", ok: true });
    });

    test("takes a new config without a new worker, and is unloaded without a trace", async () => {
      const { pid } = pipeline.manager.instance("foreign");
      await pipeline.manager.updateConfig("foreign", { factor: 3 });
      const worker = identify(pipeline.manager.instance("foreign").pid ?? 0);
      expect(worker?.pid).toBe(pid);
      await pipeline.manager.unload("foreign");
      expect(worker !== undefined && isAlive(worker)).toBe(false);
      const runFolder = runFolderPath(join(project.folder, "data"));
      await until(async () => (await readdir(runFolder)).every((name) => name === "host.sock"));
    });
  },
);
afterAll(() => rm(home, { recursive: true, force: true }));

/** The manifests the original's own tools would write. */
async function writeOriginal(project: Project, python: string): Promise<void> {
  const surface = `import json
from cjm_substrate.core.capability import derive_structural_surface
from cjm_fixture_tool import Tool
print(json.dumps({"surface": derive_structural_surface(Tool), "schema": Tool().get_config_schema()}))`;
  const env = { ...process.env, PYTHONPATH: FIXTURE };
  const { stdout } = await promisify(execFile)(python, ["-c", surface], { env });
  const described = JSON.parse(stdout) as Record<"surface" | "schema", unknown>;
  const manifest = {
    format_version: "2.0",
    install: { python_path: python, conda_env: "foreign", env_vars: { PYTHONPATH: FIXTURE } },
    code: {
      name: "foreign",
      version: "0.3.0",
      module: "cjm_fixture_tool",
      class: "Tool",
      sdk: "cjm-substrate",
      config_schema: described.schema,
      structural_surface: described.surface,
    },
    // As Python hashed it: another text of the same schema.
    drift_tracking: { config_schema_hash: `sha256:${"1".repeat(64)}` },
  };
  await writeFile(join(project.manifests, "foreign.json"), JSON.stringify(manifest));
  const adapter = {
    unit: "adapter",
    name: "cjm_fixture_tool.ToolAdapter",
    version: "1",
    task_name: "echoing",
    module: "cjm_fixture_tool",
    class: "ToolAdapter",
    required_tool_protocol: "EchoTool",
    protocol_members: { methods: [{ name: "echo", params: ["text"] }], properties: [] },
    conda_env: "foreign",
  };
  await writeFile(join(project.manifests, "adapter.json"), JSON.stringify(adapter));
}
