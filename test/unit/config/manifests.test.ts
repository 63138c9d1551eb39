import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  currentPlatform,
  describeProblem,
  hostPackage,
  loadManifests,
  workerCommand,
  writeManifest,
} from "../../../src/config/index.ts";

let root = "";
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "cjm-manifests-"));
  await mkdir(join(root, "installed"));
  await mkdir(join(root, "shipped"));
});
afterEach(() => rm(root, { recursive: true }));

const put = (path: string, value: unknown): Promise<void> =>
  writeFile(join(root, path), typeof value === "string" ? value : JSON.stringify(value, null, 2));
const paths = (): string[] => [join(root, "installed"), join(root, "shipped")];
const manifest = (name: string, code: object = {}, rest: object = {}): object => ({
  format_version: "2.0",
  code: { name, version: "1.0.0", entry: "dist/workers/x/main.js", ...code },
  ...rest,
});

describe("loadManifests", () => {
  test("lets the installed manifest win over the shipped one", async () => {
    await put("shipped/a.json", manifest("a", { version: "1.0.0" }));
    await put("installed/a.json", manifest("a", { version: "2.0.0" }));
    await put("shipped/b.json", manifest("b"));
    const { capabilities, problems } = await loadManifests(paths());
    expect(problems).toEqual([]);
    expect([...capabilities.keys()].sort()).toEqual(["a", "b"]);
    expect(capabilities.get("a")?.manifest.code.version).toBe("2.0.0");
    expect(capabilities.get("a")?.path).toBe(join(root, "installed", "a.json"));
  });

  test("merges overrides deeply over code", async () => {
    await put(
      "installed/a.json",
      manifest(
        "a",
        {
          description: "kept",
          config_schema: { type: "object", properties: { x: { type: "string" } } },
        },
        {
          overrides: {
            config_schema: { properties: { x: { default: "y" } } },
            max_concurrent_requests: 3,
          },
        },
      ),
    );
    const { capabilities } = await loadManifests(paths());
    expect(capabilities.get("a")?.manifest.code).toMatchObject({
      description: "kept",
      max_concurrent_requests: 3,
      config_schema: { type: "object", properties: { x: { type: "string", default: "y" } } },
    });
  });

  test("tells adapters apart", async () => {
    await put("installed/x.json", {
      unit: "adapter",
      name: "transcribe",
      task_name: "transcription",
      module: "m",
      class: "C",
    });
    const { capabilities, adapters } = await loadManifests(paths());
    expect(capabilities.size).toBe(0);
    expect(adapters.get("transcribe")?.manifest.task_name).toBe("transcription");
  });

  test("makes each bad file a problem with its fields and reads the others", async () => {
    await put("installed/good.json", manifest("good"));
    await put("installed/old.json", { ...manifest("old"), format_version: "1.0" });
    await put("installed/flat.json", { name: "flat" });
    await put("installed/cut.json", '{"format_version": "2.0", ');
    await put(
      "installed/wrong.json",
      manifest("wrong", { version: 3, max_concurrent_requests: 0 }),
    );
    await put("installed/twin.json", manifest("good"));
    const { capabilities, problems } = await loadManifests(paths());
    expect([...capabilities.keys()]).toEqual(["good"]);
    const lines = problems
      .map((problem) => describeProblem(problem).slice(root.length + 11))
      .sort();
    expect(lines).toHaveLength(6);
    expect(lines[0]).toMatch(/^cut\.json: .*JSON/u);
    expect(lines[1]).toBe('flat.json: format_version is none; only "2.0" is read');
    expect(lines[2]).toBe('old.json: format_version is "1.0"; only "2.0" is read');
    expect(lines[3]).toContain('twin.json: "good" is described by');
    expect(lines[4]).toMatch(/^wrong\.json:\d+:5: code\.(?:version|max_concurrent_requests): /u);
  });

  test("says whether this machine is one of the platforms", async () => {
    await put("installed/a.json", manifest("a", { resources: { platforms: ["win-x64"] } }));
    await put("installed/b.json", manifest("b", { resources: { platforms: [currentPlatform()] } }));
    const { capabilities } = await loadManifests(paths());
    expect(capabilities.get("a")?.supported).toBe(false);
    expect(capabilities.get("b")?.supported).toBe(true);
  });

  test("starts a shipped worker by this Node, and an installed one by its command", async () => {
    await put("shipped/a.json", manifest("a"));
    await put(
      "shipped/b.json",
      manifest("b", {}, { install: { command: ["/env/bin/python", "-m", "b"] } }),
    );
    await put("shipped/c.json", manifest("c", { entry: "workers/c/main.py" }));
    const { capabilities } = await loadManifests(paths());
    const commandOf = (name: string): readonly string[] | undefined => {
      const found = capabilities.get(name);
      return found === undefined ? [] : workerCommand(found);
    };
    expect(commandOf("a")).toEqual([
      process.execPath,
      join(hostPackage().root, "dist/workers/x/main.js"),
    ]);
    expect(commandOf("b")).toEqual(["/env/bin/python", "-m", "b"]);
    expect(commandOf("c")).toBeUndefined();
  });

  test("takes a folder that is not there as empty", async () => {
    expect((await loadManifests([join(root, "none")])).capabilities.size).toBe(0);
  });
});

describe("writeManifest", () => {
  test("writes what can be read again and leaves no other file", async () => {
    const path = join(root, "installed", "w.json");
    await writeManifest(path, {
      format_version: "2.0",
      code: { name: "w", version: "1.0.0", entry: "main.js" },
    });
    expect(await readdir(join(root, "installed"))).toEqual(["w.json"]);
    expect((await readFile(path, "utf8")).startsWith('{\n  "format_version": "2.0"')).toBe(true);
    expect((await loadManifests(paths())).capabilities.has("w")).toBe(true);
  });

  test("refuses a manifest that could not be read again", async () => {
    const path = join(root, "installed", "w.json");
    await expect(
      writeManifest(path, { format_version: "2.0", code: { name: "w", version: "1" } }),
    ).rejects.toMatchObject({ code: "MANIFEST_INVALID" });
    expect(await readdir(join(root, "installed"))).toEqual([]);
  });
});
