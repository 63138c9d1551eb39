import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { adoptOutputs } from "../../../src/capability/output-files.ts";
import {
  capabilitiesFileSchema,
  checkYaml,
  loadManifests,
  parseYaml,
  readManifest,
  readYaml,
  resolveIncludes,
} from "../../../src/config/index.ts";
import { parseCompositionFile } from "../../../src/composition/index.ts";
import { NAME_PATTERN } from "../../../src/util/ids.ts";
import { sha256 } from "../../../src/util/canonical-json.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-hostile-"));
});
afterAll(() => rm(folder, { recursive: true }));

const thrown = async (work: () => unknown): Promise<unknown> => {
  try {
    return await work();
  } catch (error) {
    return error;
  }
};

/** What leads out of a folder when it becomes a part of a path. */
const TRAVERSALS = [
  "..",
  ".",
  "",
  "../x",
  "a/../../x",
  "/etc/passwd",
  "a\\..\\x",
  "a\u0000b",
  "a\nb",
  "-rf",
  "~root",
  "%2e%2e",
  "\u2024\u2024/x",
  "a".repeat(65),
  "con\u202e",
];

describe("a name that becomes a part of a path", () => {
  test.each(TRAVERSALS.filter((name) => name !== "-rf"))(
    "%j is refused everywhere",
    async (name) => {
      expect(NAME_PATTERN.test(name)).toBe(false);
      const list = { capabilities: [{ name, path: "." }] };
      const source = parseYaml(JSON.stringify(list), "c.yaml");
      const capability: unknown = await thrown(() => checkYaml(source, capabilitiesFileSchema));
      expect(capability).toMatchObject({ code: "FILE_INVALID" });
      const manifest = {
        format_version: "2.0",
        install: { command: ["x"] },
        code: { name, version: "1" },
      };
      const path = join(folder, "m.json");
      await writeFile(path, JSON.stringify(manifest));
      expect(await thrown(() => readManifest(path))).toMatchObject({ code: "MANIFEST_INVALID" });
      const composition = { nodes: { [name]: { capability: "tool" } } };
      expect(await thrown(() => parseCompositionFile(composition))).toMatchObject({
        category: "user_input",
      });
    },
  );
});

describe("a YAML file", () => {
  test.each([
    ["a bomb of aliases", `a: &a [x,x,x]\nb: &b [${"*a,".repeat(60)}]\nc: [${"*b,".repeat(60)}]`],
    ["an alias to itself", "a: &a [*a]"],
    ["endless nesting", "[".repeat(20_000)],
    ["a merge of itself", "a: &a\n  <<: *a"],
  ])("with %s is refused by name or is small", async (_what, text) => {
    const result: unknown = await thrown(() => parseYaml(text, "bomb.yaml").value);
    if (result instanceof Error) expect(result).toMatchObject({ code: "FILE_INVALID" });
    else expect(safeSize(result)).toBeLessThan(10_000);
  });

  test("with a tag of another language makes no object of it", () => {
    const { value } = parseYaml(
      'a: !!js/function "function () { return 1 }"\nb: !!python/x y',
      "t",
    );
    expect(JSON.stringify(value)).not.toContain("[Function");
    expect(typeof (value as { a: unknown }).a).toBe("string");
  });

  test("with a member named __proto__ changes no other object", () => {
    parseYaml("__proto__: { polluted: 1 }\nconstructor: { prototype: { polluted: 1 } }", "p.yaml");
    expect("polluted" in {}).toBe(false);
  });
});

function safeSize(value: unknown): number {
  try {
    return JSON.stringify(value)?.length ?? 0;
  } catch {
    // A value that holds itself is small, and whoever writes it down is told.
    return 0;
  }
}

describe("a file that is none", () => {
  test("a pipe or a device in the place of a manifest is a problem of that file alone", async () => {
    const manifests = join(folder, "manifests");
    await mkdir(manifests);
    execFileSync("mkfifo", [join(manifests, "pipe.json")]);
    await symlink("/dev/zero", join(manifests, "zero.json"));
    await symlink("/nowhere", join(manifests, "gone.json"));
    await symlink(manifests, join(manifests, "loop.json"));
    const good = {
      format_version: "2.0",
      install: { command: ["x"] },
      code: { name: "good", version: "1" },
    };
    await writeFile(join(manifests, "good.json"), JSON.stringify(good));
    const { capabilities, problems } = await loadManifests([manifests]);
    expect([...capabilities.keys()]).toEqual(["good"]);
    expect(problems).toHaveLength(4);
    expect(await thrown(() => readYaml("/dev/zero"))).toMatchObject({ code: "FILE_INVALID" });
  });

  test("overrides with a member named __proto__ change nothing of what is inherited", async () => {
    const path = join(folder, "proto.json");
    await writeFile(
      path,
      `{"format_version":"2.0","install":{"command":["x"]},"code":{"name":"p","version":"1"},
        "overrides":{"__proto__":{"entry":"/evil.js","polluted":1}}}`,
    );
    const unit = await readManifest(path);
    if (unit.kind !== "capability") throw new Error("it is a capability");
    expect(unit.found.manifest.code.entry).toBe(undefined);
    expect(
      "polluted" in unit.found.manifest.code &&
        !Object.hasOwn(unit.found.manifest.code, "polluted"),
    ).toBe(false);
  });

  test.each(["../secret.txt", "/etc/passwd", "link.txt", "pipe.txt"])(
    "an include of %s is refused",
    async (path) => {
      const inside = await mkdtemp(join(folder, "includes-"));
      await writeFile(join(folder, "secret.txt"), "secret");
      await symlink(join(folder, "secret.txt"), join(inside, "link.txt"));
      execFileSync("mkfifo", [join(inside, "pipe.txt")]);
      const document = { kwargs: { text: { $include: path } } };
      const error: unknown = await thrown(() => resolveIncludes(document, join(inside, "c.yaml")));
      expect(error).toMatchObject({ code: "FILE_INVALID" });
    },
  );
});

describe("a worker's reference to a file", () => {
  const ref = (path: string, size = 3, content = "abc"): unknown => ({
    __wire__: "file.ref",
    data: { path, size, sha256: sha256(content) },
  });

  test("that leads out of the attempt's folder is refused, however it does", async () => {
    const home = await mkdtemp(join(folder, "out-"));
    const attempt = join(home, "attempt");
    await mkdir(attempt);
    await mkdir(`${attempt}-twin`);
    await writeFile(join(home, "outside"), "abc");
    await writeFile(`${attempt}-twin/file`, "abc");
    await symlink(join(home, "outside"), join(attempt, "link"));
    await symlink(home, join(attempt, "up"));
    execFileSync("mkfifo", [join(attempt, "pipe")]);
    const folders = { attempt, files: join(home, "files") };
    const paths = ["link", "up/outside", "../outside", "pipe", "gone", "."];
    const outside = [...paths.map((name) => join(attempt, name)), `${attempt}-twin/file`];
    for (const path of [...outside, "/etc/passwd", "relative", "", "\u0000"]) {
      const error: unknown = await thrown(() => adoptOutputs({ list: [ref(path)] }, folders));
      expect(error, path).toMatchObject({ code: "OUTPUT_OUTSIDE_FOLDER" });
    }
    const names = ["../outside", "up/outside", "link", "/etc/passwd"];
    for (const name of names) {
      const data = {
        path: attempt,
        sha256: sha256("x"),
        files: [{ name, size: 3, sha256: sha256("abc") }],
      };
      const error: unknown = await thrown(() =>
        adoptOutputs({ __wire__: "dir.ref", data }, folders),
      );
      expect(error, name).toMatchObject({ code: "OUTPUT_OUTSIDE_FOLDER" });
    }
  });

  test("beside a member named __proto__ leaves that member a member", async () => {
    const answer: unknown = JSON.parse('{"__proto__":{"polluted":1},"a":1}');
    const adopted = await adoptOutputs(answer, { attempt: folder, files: folder });
    expect(JSON.stringify(adopted)).toBe('{"__proto__":{"polluted":1},"a":1}');
  });
});
