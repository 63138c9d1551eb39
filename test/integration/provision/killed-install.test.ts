import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadConfig, loadManifests, workerCommand } from "../../../src/config/index.ts";
import { installAll } from "../../../src/provision/index.ts";
import { processesWithVariable } from "../../../src/process/process-table.ts";

const FIXTURES = fileURLToPath(new URL("../../fixtures/projects/greeters", import.meta.url));
const DRIVER = fileURLToPath(new URL("install-driver.ts", import.meta.url));
const MARKER = `killed-install-${process.pid}`;
const ENV = {
  ...process.env,
  NODE_OPTIONS: "--conditions=@cjm/source",
  CJM_TEST_INSTALL: MARKER,
};

let project = "";
beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "cjm-killed-"));
  await cp(FIXTURES, project, { recursive: true });
  await writeFile(
    join(project, "cjm.yaml"),
    "substrate:\n  pass_env: [NODE_OPTIONS, CJM_TEST_INSTALL]\n",
  );
  await writeFile(
    join(project, "capabilities.yaml"),
    "capabilities:\n  - name: js-greeter\n    path: js-greeter\n",
  );
  await install();
});
afterAll(() => rm(project, { recursive: true, force: true }));

async function install(): Promise<string | undefined> {
  const config = await loadConfig({ cwd: project, env: {} });
  const [result] = await installAll({ config, env: ENV });
  return result?.outcome;
}

async function setVersion(version: string): Promise<void> {
  const main = join(project, "js-greeter/main.js");
  const text = await readFile(main, "utf8");
  await writeFile(main, text.replace(/version: ".*"/u, `version: "${version}"`));
}

/** Starts the installed worker by its manifest's command and asks for its version. */
async function servedVersion(): Promise<unknown> {
  const { capabilities, problems } = await loadManifests([join(project, ".cjm/manifests")]);
  expect(problems).toEqual([]);
  const found = capabilities.get("js-greeter");
  const [file = "", ...args] = (found && workerCommand(found)) ?? [];
  const { stdout } = await execa(file, args, { env: { ...ENV, CJM_INTROSPECT: "1" } });
  const code = JSON.parse(stdout.split("\n").at(-1) ?? "") as { version: unknown };
  expect(code.version).toBe(found?.manifest.code.version);
  return code.version;
}

/** Kills an installation with SIGKILL once it has announced this many events. */
async function killAfter(events: number): Promise<void> {
  const driver = spawn(process.execPath, [DRIVER, project], {
    env: ENV,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = once(driver, "close");
  let seen = 0;
  for await (const _ of createInterface(driver.stdout)) {
    seen += 1;
    if (seen === events) break;
  }
  driver.kill("SIGKILL");
  await closed;
}

describe("an installation that is killed", () => {
  test.each([1, 2, 3, 4, 5])(
    "after event %i leaves the old environment working, no process, and is finished by the next run",
    async (events) => {
      const before = await servedVersion();
      await setVersion(`2.${events}.0`);
      await killAfter(events);

      await expect
        .poll(() => processesWithVariable("CJM_TEST_INSTALL", (v) => v === MARKER))
        .toEqual([]);
      expect([before, `2.${events}.0`]).toContain(await servedVersion());

      expect(["installed", "unchanged"]).toContain(await install());
      expect(await servedVersion()).toBe(`2.${events}.0`);
      expect(await install()).toBe("unchanged");
    },
  );
});
