import { mkdir, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../support/cli.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

const FILES = {
  "package.json": JSON.stringify({ name: "empty", private: true, type: "module" }),
  "capabilities.yaml": `capabilities:
  - name: greeter
    path: greeter
  - name: counter
    path: counter
    entry: counter:Counter
  - name: sandbox
    path: node_modules/cjm-substrate/workers/sandbox
`,
  "greeter/package.json": JSON.stringify({ name: "greeter", type: "module" }),
  "greeter/main.ts": `import { defineAction, defineCapability, serve, z } from "cjm-substrate/worker";
await serve(
  defineCapability({
    name: "greeter",
    version: "1.0.0",
    description: "Greets.",
    config: z.strictObject({}),
    actions: {
      greet: defineAction({
        default: true,
        input: z.strictObject({ who: z.string() }),
        output: z.object({ text: z.string() }),
        handler: ({ who }: { who: string }) => ({ text: \`Hello, \${who}\` }),
      }),
    },
  }),
);
`,
  "counter/counter.py": `from cjm_worker import Capability, action


class Counter(Capability):
    """Counts letters."""

    name = "counter"
    version = "1.0.0"

    @action
    def count(self, text: str) -> int:
        return len(text)
`,
  "composition.yaml": `nodes:
  greet: { capability: greeter, kwargs: { who: you } }
  count: { capability: counter, action: count, kwargs: { text: { $ref: greet.text } } }
  check:
    capability: sandbox
    action: run
    kwargs: { language: python, code: "print(6 * 7)", isolation: none }
`,
};

/** An empty project that has installed what \`npm pack\` makes of this repository. */
describe("the packed package in an empty project", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let project = "";
  const npm = (args: readonly string[], cwd: string): Promise<unknown> =>
    execa("npm", [...args, "--prefer-offline", "--no-audit", "--no-fund"], { cwd });
  // oxlint-disable-next-line typescript/explicit-function-return-type -- execa's own type
  const cjmCtl = (...args: readonly string[]) =>
    execa(join(project, "node_modules/.bin/cjm-ctl"), args, { cwd: project, reject: false });

  beforeAll(async () => {
    folder = await temporaryFolder();
    project = join(folder.path, "project");
    for (const [name, text] of Object.entries(FILES)) {
      await mkdir(dirname(join(project, name)), { recursive: true });
      await writeFile(join(project, name), text);
    }
    await npm(["pack", "--pack-destination", folder.path], ROOT);
    const packed = (await readdir(folder.path)).find((name) => name.endsWith(".tgz"));
    await npm(["install", "--omit=dev", join(folder.path, packed ?? "")], project);
  }, 60_000);
  afterAll(async () => {
    await folder[Symbol.asyncDispose]();
  });

  test("says its version", async () => {
    const { stdout, exitCode } = await cjmCtl("--version");
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+$/u);
  });

  test("installs a TypeScript and a Python capability of one's own and a shipped one, and runs a job of each", async () => {
    const installed = await cjmCtl("install-all", "--json");
    expect(installed.exitCode, installed.stdout + installed.stderr).toBe(0);

    const again = await cjmCtl("install-all", "--json");
    const outcomes = JSON.parse(again.stdout) as { name: string; outcome: string }[];
    expect(outcomes.map(({ name, outcome }) => `${name} ${outcome}`)).toEqual([
      "greeter unchanged",
      "counter unchanged",
      "sandbox unchanged",
    ]);

    const run = await cjmCtl("run", "composition.yaml", "--json");
    expect(run.exitCode, run.stdout + run.stderr).toBe(0);
    const { results } = JSON.parse(run.stdout) as { results: Record<string, unknown> };
    expect(results).toMatchObject({
      greet: { text: "Hello, you" },
      count: 10,
      check: { stdout: "42\n" },
    });
  });
});
