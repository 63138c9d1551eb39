import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadConfig, loadManifests } from "../../../src/config/index.ts";
import { findPython, installAll, type InstallResult } from "../../../src/provision/index.ts";

const FIXTURES = fileURLToPath(new URL("../../fixtures/projects", import.meta.url));
// What the published package asks for.
const python312 = await findPython("3.12", process.env).catch(() => undefined);

let project = "";
beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "cjm-original-"));
});
afterEach(() => rm(project, { recursive: true, force: true }));

async function install(): Promise<InstallResult> {
  const config = await loadConfig({ cwd: project, env: {} });
  const [result] = await installAll({ config });
  if (result === undefined) throw new Error("nothing was installed");
  return result;
}

describe("an entry of the original", () => {
  test.skipIf(python312 === undefined)(
    "installs unchanged, is introspected in its environment and gets its manifests",
    async () => {
      await cp(join(FIXTURES, "original"), project, { recursive: true });
      const result = await install();
      expect(result.error).toBeUndefined();
      expect(result).toMatchObject({
        kind: "venv",
        outcome: "installed",
        adapters: ["cjm_capability_echo.adapter.EchoAdapter"],
      });
      const { capabilities, adapters, problems } = await loadManifests([
        join(project, ".cjm/manifests"),
      ]);
      expect(problems).toEqual([]);
      const { install: section, code } = capabilities.get("cjm-capability-echo")?.manifest ?? {};
      expect(section?.command).toBeUndefined();
      expect(section?.python_path).toBe(join(result.folder ?? "", "bin/python"));
      expect(section?.conda_env).toBe("cjm-capability-echo");
      expect(code).toMatchObject({
        name: "cjm-capability-echo",
        version: "0.3.0",
        description: "Gives back what it gets.",
        module: "cjm_capability_echo.capability",
        class: "Echo",
        sdk: "cjm-substrate",
        config_schema: { properties: { loud: { default: false } } },
        worker_env: [{ name: "ECHO_API_KEY", secret: true }],
      });
      expect(code?.structural_surface?.methods.map(({ name }) => name)).toContain("echo");
      expect(adapters.get("cjm_capability_echo.adapter.EchoAdapter")?.manifest).toMatchObject({
        task_name: "echoing",
        required_tool_protocol: "cjm_capability_echo.adapter.EchoTool",
        protocol_members: { methods: [{ name: "echo", params: ["text"] }] },
        conda_env: "cjm-capability-echo",
      });
      expect((await install()).outcome).toBe("unchanged");
    },
    120_000,
  );
});
