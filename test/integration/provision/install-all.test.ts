import { spawn } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadConfig, loadManifests, type DiscoveredManifest } from "../../../src/config/index.ts";
import { installAll, type InstallEvent, type InstallResult } from "../../../src/provision/index.ts";

const FIXTURES = fileURLToPath(new URL("../../fixtures/projects/greeters", import.meta.url));
// Workers are started from source here; a product's are compiled.
const ENV = { ...process.env, NODE_OPTIONS: "--conditions=@cjm/source" };

let project = "";
beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "cjm-provision-"));
  await cp(FIXTURES, project, { recursive: true });
  await writeFile(join(project, "cjm.yaml"), "substrate:\n  pass_env: [NODE_OPTIONS]\n");
});
afterEach(() => rm(project, { recursive: true, force: true }));

const capabilities = (yaml: string): Promise<void> =>
  writeFile(join(project, "capabilities.yaml"), `capabilities:\n${yaml}`);

interface Installed {
  results: readonly InstallResult[];
  events: InstallEvent[];
}
async function install(
  options: Partial<Parameters<typeof installAll>[0]> = {},
): Promise<Installed> {
  const config = await loadConfig({ cwd: project, env: {} });
  const events: InstallEvent[] = [];
  const onEvent = (event: InstallEvent): void => void events.push(event);
  return { results: await installAll({ config, env: ENV, onEvent, ...options }), events };
}

const outcomes = ({ results }: Installed): Record<string, string> =>
  Object.fromEntries(results.map(({ name, outcome }) => [name, outcome]));
const errorOf = ({ results }: Installed, name: string): string =>
  results.find((result) => result.name === name)?.error?.message ?? "";

async function manifest(name: string): Promise<DiscoveredManifest["manifest"]> {
  const { capabilities: found, problems } = await loadManifests([join(project, ".cjm/manifests")]);
  expect(problems).toEqual([]);
  const discovered = found.get(name);
  if (discovered === undefined) throw new Error(`${name} has no manifest`);
  return discovered.manifest;
}

/** Every file below a folder with its time and size; links, such as that to the host's package, are not followed. */
function snapshot(folder: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const item of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, item.name);
    if (item.isDirectory()) for (const entry of snapshot(path)) found.set(...entry);
    if (!item.isFile()) continue;
    const { mtimeMs, size } = statSync(path);
    found.set(path, `${mtimeMs} ${size}`);
  }
  return found;
}

/** Runs the installed worker's own command the way introspection does. */
async function describeSelf(name: string): Promise<string> {
  const { install } = await manifest(name);
  const [file = "", ...args] = install.command ?? [];
  const env = { CJM_INTROSPECT: "1", NODE_OPTIONS: ENV.NODE_OPTIONS };
  return (await execa(file, args, { env })).stdout;
}

const JS = "  - name: js-greeter\n    path: js-greeter\n    env: npm\n";
const PY = "  - name: py-greeter\n    path: py-greeter\n    entry: py_greeter:Greeter\n";

describe("installAll with npm", () => {
  test("installs a worker with its own packages and the host's SDK, and describes it", async () => {
    await capabilities(JS);
    const { results, events } = await install();
    expect(results).toMatchObject([{ name: "js-greeter", kind: "npm", outcome: "installed" }]);
    const { install: section, code, drift_tracking } = await manifest("js-greeter");
    expect(section.env_folder).toMatch(/\.cjm\/envs\/js-greeter\/[0-9a-f]{16}$/u);
    expect(section.command?.[1]).toBe(join(section.env_folder ?? "", "main.js"));
    expect(section).toMatchObject({ runtime: "npm", package_source: join(project, "js-greeter") });
    expect(code).toMatchObject({
      name: "js-greeter",
      description: "Greets in JavaScript.",
      sdk: "cjm",
      protocol: 1,
      config_schema: { properties: { greeting: { default: "Hello" } } },
    });
    expect(code.actions?.["greet"]?.default).toBe(true);
    expect(drift_tracking.config_schema_hash).toMatch(/^sha256:/u);
    expect(drift_tracking.structural_surface_hash).toMatch(/^sha256:/u);
    expect(events.map(({ type }) => type)).toEqual(
      expect.arrayContaining(["started", "step", "output", "finished"]),
    );
    const log = await readFile(join(project, ".cjm/logs/install/js-greeter.log"), "utf8");
    expect(log).toContain("$ npm install --omit=dev");
  });

  test("changes no byte the second time", async () => {
    await capabilities(JS);
    await install();
    const before = snapshot(join(project, ".cjm"));
    const second = await install();
    expect(outcomes(second)).toEqual({ "js-greeter": "unchanged" });
    expect(snapshot(join(project, ".cjm"))).toEqual(before);
    expect(second.events.map(({ type }) => type)).toEqual(["started", "finished"]);
  });

  test("acts when the source changes, and removes the environment it replaced", async () => {
    await capabilities(JS);
    await install();
    const old = (await manifest("js-greeter")).install.env_folder ?? "";
    const main = join(project, "js-greeter/main.js");
    await writeFile(main, (await readFile(main, "utf8")).replaceAll('"1.0.0"', '"1.1.0"'));
    const { results, events } = await install();
    expect(results[0]?.outcome).toBe("installed");
    const { code, install: section } = await manifest("js-greeter");
    expect(code.version).toBe("1.1.0");
    expect(section.env_folder).not.toBe(old);
    expect(existsSync(old)).toBe(false);
    expect(events).toContainEqual({ type: "removed", name: "js-greeter", folder: old });
  });

  test("acts when a file of the environment is missing", async () => {
    await capabilities(JS);
    await install();
    const folder = (await manifest("js-greeter")).install.env_folder ?? "";
    await rm(join(folder, "node_modules/exclaim"), { recursive: true });
    expect(outcomes(await install())).toEqual({ "js-greeter": "installed" });
    expect(await describeSelf("js-greeter")).toContain('"name":"js-greeter"');
    expect(outcomes(await install())).toEqual({ "js-greeter": "unchanged" });
  });

  test("builds anew when forced, and keeps an environment that a process runs from", async () => {
    await capabilities(JS);
    await install();
    const old = (await manifest("js-greeter")).install.env_folder ?? "";
    const running = spawn(process.execPath, [
      "-e",
      "setInterval(() => {}, 1000); console.log('up')",
      join(old, "main.js"),
    ]);
    try {
      await new Promise((resolve) => running.stdout.once("data", resolve));
      expect(outcomes(await install({ force: true }))).toEqual({ "js-greeter": "installed" });
      expect((await manifest("js-greeter")).install.env_folder).not.toBe(old);
      expect(existsSync(join(old, "main.js"))).toBe(true);
    } finally {
      running.kill("SIGKILL");
    }
    await new Promise((resolve) => running.once("close", resolve));
    await install();
    expect(existsSync(old)).toBe(false);
  });

  test("installs a package that brings its own worker", async () => {
    await capabilities("  - name: js-greeter\n    package: ./js-greeter\n    env: npm\n");
    const { results } = await install();
    expect(results).toMatchObject([{ outcome: "installed" }]);
    const { install: section, code } = await manifest("js-greeter");
    const entry = join(section.env_folder ?? "", "node_modules/js-greeter/main.js");
    expect(section.command).toEqual([process.execPath, entry]);
    expect(code.name).toBe("js-greeter");
    expect(outcomes(await install())).toEqual({ "js-greeter": "unchanged" });
    await writeFile(join(project, "js-greeter/more.js"), "");
    expect(outcomes(await install())).toEqual({ "js-greeter": "installed" });
  });

  test("keeps the operator's overrides when it writes the manifest anew", async () => {
    await capabilities(JS);
    await install();
    const path = join(project, ".cjm/manifests/js-greeter.json");
    const stored = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
    stored["overrides"] = { description: "ours" };
    await writeFile(path, JSON.stringify(stored));
    await install({ force: true });
    expect((await manifest("js-greeter")).code.description).toBe("ours");
  });
});

describe("installAll with a path", () => {
  test("describes a worker where it is", async () => {
    await capabilities("  - name: in-place\n    path: in-place\n    env: path\n    cage: group\n");
    await install();
    const { install: section } = await manifest("in-place");
    expect(section.command).toEqual([process.execPath, join(project, "in-place/main.js")]);
    expect(section.cage).toBe("group");
    expect(existsSync(join(project, ".cjm/envs"))).toBe(false);
    expect(outcomes(await install())).toEqual({ "in-place": "unchanged" });
  });
});

describe("installAll with a Python file", () => {
  test("serves a worker that calls serve() where it is, with the SDK of this package", async () => {
    await capabilities("  - name: py-script\n    path: py-script\n    env: path\n");
    await install();
    const { install: section, code } = await manifest("py-script");
    expect(section.command?.at(-1)).toBe(join(project, "py-script/main.py"));
    expect(section.env_vars["PYTHONPATH"]).toContain("python/src");
    expect(code).toMatchObject({ name: "py-script", sdk: "cjm" });
    expect(Object.keys(code.actions ?? {})).toEqual(["greet"]);
  });
});

describe("installAll with venv", () => {
  test("makes a virtual environment with the SDK and the worker in it", async () => {
    await capabilities(PY);
    await install();
    const { install: section, code } = await manifest("py-greeter");
    const folder = section.env_folder ?? "";
    expect(section).toMatchObject({ runtime: "venv", python_path: join(folder, "bin/python") });
    expect(section.command).toEqual([
      join(folder, "bin/python"),
      "-m",
      "cjm_worker",
      "py_greeter:Greeter",
    ]);
    expect(code).toMatchObject({ name: "py-greeter", sdk: "cjm", module: "py_greeter" });
    const before = snapshot(join(project, ".cjm"));
    expect(outcomes(await install())).toEqual({ "py-greeter": "unchanged" });
    expect(snapshot(join(project, ".cjm"))).toEqual(before);
  });

  test("says which Python is missing", async () => {
    await capabilities(`${PY}    python_version: "2.1"\n`);
    expect(errorOf(await install(), "py-greeter")).toContain(
      "Python 2.1 was found neither on PATH",
    );
  });
});

describe("installAll when something fails", () => {
  test("installs the others, and says for each that failed what and where", async () => {
    await capabilities(
      `${JS}  - name: wrong-name\n    path: wrong-name\n  - name: crashes\n    path: crashes\n  - name: absent\n    path: nowhere\n    env: npm\n`,
    );
    const installed = await install();
    expect(outcomes(installed)).toEqual({
      "js-greeter": "installed",
      "wrong-name": "failed",
      crashes: "failed",
      absent: "failed",
    });
    expect(errorOf(installed, "wrong-name")).toBe(
      'The worker calls itself "someone-else"; capabilities.yaml calls it "wrong-name"',
    );
    expect(errorOf(installed, "crashes")).toContain("the worker cannot even start");
    expect(errorOf(installed, "crashes")).toContain(".cjm/logs/install/crashes.log");
    expect(errorOf(installed, "absent")).toContain(join(project, "nowhere"));
    expect(readdirSync(join(project, ".cjm/manifests"))).toEqual(["js-greeter.json"]);
  });

  test("leaves the environment of before working", async () => {
    await capabilities(JS);
    await install();
    const before = await readFile(join(project, ".cjm/manifests/js-greeter.json"), "utf8");
    await writeFile(
      join(project, "js-greeter/package.json"),
      JSON.stringify({ name: "js-greeter", type: "module", dependencies: { x: "file:nowhere" } }),
    );
    await writeFile(join(project, "js-greeter/main.js"), "syntax error");
    const failed = await install();
    expect(outcomes(failed)).toEqual({ "js-greeter": "failed" });
    expect(await readFile(join(project, ".cjm/manifests/js-greeter.json"), "utf8")).toBe(before);
    expect(await describeSelf("js-greeter")).toContain('"name":"js-greeter"');
  });

  test("removes what a killed installation left, and only that", async () => {
    await capabilities(JS);
    await install();
    const serving = (await manifest("js-greeter")).install.env_folder ?? "";
    const leftover = join(project, ".cjm/envs/js-greeter/0123456789abcdef");
    await mkdir(join(leftover, "node_modules"), { recursive: true });
    await install();
    expect(existsSync(leftover)).toBe(false);
    expect(existsSync(serving)).toBe(true);
  });

  test("refuses to run beside another installation", async () => {
    await capabilities(JS);
    let second: Promise<unknown> | undefined;
    const onEvent = (event: InstallEvent): void => {
      if (event.type === "started") second = install().catch((error: unknown) => error);
    };
    await install({ onEvent });
    expect(await second).toMatchObject({ code: "DATA_DIR_LOCKED" });
  });

  test("ends its installers on abort and keeps nothing half-built", async () => {
    await capabilities(PY);
    const stop = new AbortController();
    const onEvent = (event: InstallEvent): void => {
      if (event.type === "step" && event.text.includes("venv")) stop.abort(new Error("stop"));
    };
    await expect(install({ onEvent, signal: stop.signal })).rejects.toThrow("stop");
    expect(readdirSync(join(project, ".cjm/envs/py-greeter"))).toEqual([]);
  });

  test("names what `only` does not find", async () => {
    await capabilities(JS + PY);
    await expect(install({ only: ["js-greter"] })).rejects.toThrow('did you mean "js-greeter"?');
    expect(outcomes(await install({ only: ["js-greeter"] }))).toEqual({
      "js-greeter": "installed",
    });
  });
});
