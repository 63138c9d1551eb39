import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { loadManifests, readManifest } from "../../../src/config/index.ts";
import { manifestSchema } from "../../../src/protocol/index.ts";
import { isRecord } from "../../../src/util/record.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-m-"));
});
afterAll(() => rm(folder, { recursive: true }));

const object = { type: "object", properties: {} };
const WHOLE = {
  format_version: "2.0",
  install: {
    runtime: "npm",
    command: ["node", "main.js"],
    env_folder: "/x",
    env_key: "k",
    cage: "auto",
    python_path: "/x/python",
    conda_env: "e",
    db_path: "",
    env_vars: { A: "1" },
    installed_at: "",
    installer_version: "",
    package_source: "",
  },
  code: {
    name: "tool",
    version: "1",
    description: "",
    module: "m",
    class: "C",
    entry: "main.js",
    sdk: "cjm",
    protocol: 1,
    actions: {
      run: { description: "", input_schema: object, output_schema: object, default: true },
    },
    tasks: { greeting: ["greet"] },
    max_concurrent_requests: 1,
    monitor: false,
    code_hash: "sha256:0",
    resources: { requires_gpu: false, platforms: [], accelerators: [] },
    config_schema: object,
    regenerated_at: "",
    worker_env: [{ name: "KEY", secret: true, required: false }],
    structural_surface: { methods: [{ name: "run", signature: "()", params: [] }], properties: [] },
  },
  drift_tracking: { config_schema_hash: `sha256:${"0".repeat(64)}` },
  overrides: {},
};

type Path = readonly (string | number)[];

/** Every place in the manifest that holds something, the sections themselves included. */
function places(value: unknown, at: Path = []): Path[] {
  const members: [string | number, unknown][] = Array.isArray(value)
    ? value.map((item, index) => [index, item])
    : isRecord(value)
      ? Object.entries(value)
      : [];
  const below = members.flatMap(([key, member]) => places(member, [...at, key]));
  return at.length === 0 ? below : [at, ...below];
}

function replaced(value: unknown, [key, ...rest]: Path, wrong: unknown): unknown {
  if (key === undefined) return wrong;
  if (Array.isArray(value)) {
    return value.map((item: unknown, index): unknown =>
      index === key ? replaced(item, rest, wrong) : item,
    );
  }
  return isRecord(value) ? { ...value, [key]: replaced(value[key], rest, wrong) } : value;
}

async function write(manifest: unknown): Promise<string> {
  const path = join(folder, "tool.json");
  await writeFile(path, typeof manifest === "string" ? manifest : JSON.stringify(manifest));
  return path;
}

test("the manifest that is made wrong is right", async () => {
  expect((await readManifest(await write(WHOLE))).kind).toBe("capability");
});

test("each field wrong in turn is refused by the schema alone or named in one typed error", async () => {
  const all = places(WHOLE);
  expect(all.length).toBeGreaterThan(40);
  for (const path of all) {
    for (const wrong of [{ a: [1] }, [[]], "\u0000", -1.5, true, null]) {
      const manifest = replaced(WHOLE, path, wrong);
      if (manifestSchema.safeParse(manifest).success) continue;
      const error: unknown = await readManifest(await write(manifest)).catch(
        (thrown: unknown) => thrown,
      );
      expect(error, JSON.stringify({ path, wrong })).toMatchObject({ code: "MANIFEST_INVALID" });
      const { message } = error as Error;
      expect(message).toContain("tool.json");
      expect(message).toContain(String(path.find((key) => typeof key === "string")));
    }
  }
});

test("anything that is no manifest is a problem of its file, and the others still load", async () => {
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.json(), fc.string()), async (text) => {
      await write(text);
      await writeFile(
        join(folder, "good.json"),
        JSON.stringify(replaced(WHOLE, ["code", "name"], "good")),
      );
      const { capabilities, problems } = await loadManifests([folder]);
      expect([...capabilities.keys()]).toEqual(["good"]);
      expect(problems.length).toBeGreaterThan(0);
      expect(problems.every(({ source }) => source.endsWith("tool.json"))).toBe(true);
    }),
    { numRuns: 60 },
  );
});

test.each(["1.0", "3.0", 2, null])("format version %s is refused by name", async (version) => {
  const error: unknown = await readManifest(
    await write({ ...WHOLE, format_version: version }),
  ).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "MANIFEST_INVALID", fieldsInvalid: ["format_version"] });
});
