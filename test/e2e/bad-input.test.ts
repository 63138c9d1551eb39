import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runCli, temporaryFolder } from "../support/cli.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;

beforeAll(async () => {
  folder = await temporaryFolder();
  await mkdir(join(folder.path, "files"));
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

/** File content, then what the one error must name. */
const CASES: Readonly<Record<string, readonly [content: string, ...named: readonly string[]]>> = {
  "an unknown capability": [
    "nodes: { a: { capability: sandbx, kwargs: {} } }",
    "nodes.a",
    'did you mean "sandbox"',
  ],
  "an unknown action": [
    "nodes: { a: { capability: sandbox, action: rnu, kwargs: { code: x } } }",
    "nodes.a",
    "rnu",
  ],
  "a misspelt kwarg": [
    "nodes: { a: { capability: sandbox, action: run, kwargs: { cod: print(1) } } }",
    "nodes.a.kwargs.cod",
  ],
  "a kwarg of the wrong type": [
    "nodes: { a: { capability: sandbox, action: run, kwargs: { code: 7 } } }",
    "nodes.a.kwargs.code",
  ],
  "a cycle": [
    `nodes:
  a: { capability: sandbox, action: run, kwargs: { code: { $ref: b.stdout } } }
  b: { capability: sandbox, action: run, kwargs: { code: { $ref: a.stdout } } }`,
    "cycle",
    "a",
    "b",
  ],
  "a ref to no node": [
    "nodes: { a: { capability: sandbox, action: run, kwargs: { code: { $ref: ghost.stdout } } } }",
    "nodes.a.kwargs.code",
    "ghost",
  ],
  "an included file that is missing": [
    "nodes: { a: { capability: sandbox, action: run, kwargs: { $include: gone.json } } }",
    "gone.json",
  ],
  "an included file outside the folder": [
    "nodes: { a: { capability: sandbox, action: run, kwargs: { code: { $include: ../../../../../etc/passwd } } } }",
    "must lie in",
  ],
  "a key nobody knows": ["nodez: {}", "nodez"],
  "text that is not YAML": ["nodes: { a: [", "1:"],
};

describe("a composition file with", () => {
  test.for(Object.entries(CASES))(
    "%s gets one clear error",
    async ([name, [content, ...named]]) => {
      const path = join(folder.path, "files", `${name.replaceAll(" ", "-")}.yaml`);
      await writeFile(path, content);
      const dataDir = join(folder.path, "data");
      const run = await runCli(["run", path], { dataDir });
      expect(run.exitCode).toBe(2);
      expect(run.stdout).toBe("");
      for (const word of named) expect(run.stderr).toContain(word);
      expect(run.stderr).not.toMatch(/\n\s+at /u);
      const kept = await readdir(join(dataDir, "work")).catch(() => []);
      expect(kept).toEqual([]);
    },
  );
});

describe("cjm-ctl with", () => {
  test.for([
    [["run", "no-such-file.yaml"], "no-such-file.yaml"],
    [["no-such-command"], "unknown command"],
    [["logs", "--limit", "many"], "--limit many"],
    [["resume", "no-such-id"], "no-such-id"],
    [["run", "examples/grade-programs/composition.yaml", "--set", "x=1"], "--set x=1"],
  ] as const)("%s says what is wrong", async ([args, named]) => {
    const run = await runCli(args, { dataDir: join(folder.path, "data") });
    expect(run.exitCode).toBe(2);
    expect(run.stderr).toContain(named);
    expect(run.stderr).not.toMatch(/\n\s+at /u);
  });
});
