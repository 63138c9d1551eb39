import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { describeProblem } from "../../../src/config/index.ts";
import { detectFormat, validateFile, type Validation } from "../../../src/provision/index.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-validate-"));
});
afterEach(() => rm(folder, { recursive: true }));

async function validate(name: string, text: string): Promise<Validation> {
  const path = join(folder, name);
  await writeFile(path, text);
  const format = await detectFormat(path);
  if (format === undefined) throw new Error(`${name} has no format`);
  return validateFile(path, format);
}
const lines = (problems: Validation["errors"]): string[] =>
  problems.map((problem) => describeProblem(problem).slice(folder.length + 1));

const manifest = (code: object): string =>
  JSON.stringify({
    format_version: "2.0",
    code: { name: "tool", version: "1.0.0", entry: "main.js", ...code },
  });

describe("validateFile", () => {
  test("accepts files that are right", async () => {
    for (const [name, text] of [
      ["cjm.yaml", "data_dir: x\n"],
      ["capabilities.yaml", "capabilities:\n  - name: a\n    path: a\n"],
      ["tool.json", manifest({})],
      ["tool.py", "x = 1\n"],
    ] as const) {
      expect(await validate(name, text)).toMatchObject({ errors: [], warnings: [] });
    }
  });

  test("names every mistake of each format", async () => {
    expect(lines((await validate("cjm.yaml", "queu: {}\ndata_dir: 1\n")).errors)).toHaveLength(2);
    expect(lines((await validate("other.yaml", "capabilities:\n  - name: a\n")).errors)).toEqual([
      "other.yaml:2:5: capabilities[0]: `package` or `path` is required",
    ]);
    expect(lines((await validate("old.json", '{"name": "x"}')).errors)).toEqual([
      'old.json: format_version is none; only "2.0" is read',
    ]);
  });

  test("refuses a secret with a default and a placeholder nobody fills", async () => {
    const worker_env = [
      { name: "API_KEY", secret: true, default: "abc" },
      { name: "CACHE", default: "${HOME}/x" },
      { name: "MODELS", default: "${CJM_MODELS_DIR}/x" },
    ];
    expect(lines((await validate("tool.json", manifest({ worker_env }))).errors)).toEqual([
      "tool.json: code.worker_env[0].default: API_KEY is a secret; a default would be written down in the manifest",
      expect.stringContaining("code.worker_env[1].default: ${HOME} is not one of CJM_MODELS_DIR"),
    ]);
  });

  test("warns of an enum without a choice and of declared needs", async () => {
    const { errors, warnings } = await validate(
      "tool.json",
      manifest({
        config_schema: { properties: { mode: { enum: ["only"] }, size: { enum: [1, 2] } } },
        resources: { min_gpu_vram_mb: 8000 },
      }),
    );
    expect(errors).toEqual([]);
    expect(warnings.map(({ key }) => key)).toEqual([
      "code.config_schema.properties.mode",
      "code.resources.min_gpu_vram_mb",
    ]);
  });

  test("lints a folder of source, but not the scripts of its author", async () => {
    await mkdir(join(folder, "pkg/tests_manual"), { recursive: true });
    const call = "import logging\nlogging.basicConfig(force=True)\n";
    await writeFile(join(folder, "pkg/tool.py"), call);
    await writeFile(join(folder, "pkg/tests_manual/run.py"), call);
    const { format, errors } = await validateFile(join(folder, "pkg"), "source");
    expect(format).toBe("source");
    expect(errors).toMatchObject([{ source: join(folder, "pkg/tool.py"), line: 2 }]);
  });

  test("leaves a file of another kind to others", async () => {
    await writeFile(join(folder, "run.yaml"), "nodes: {}\n");
    expect(await detectFormat(join(folder, "run.yaml"))).toBeUndefined();
  });
});
