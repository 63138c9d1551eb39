import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { runCli, temporaryFolder } from "../support/cli.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

const TSCONFIG = {
  compilerOptions: {
    target: "es2024",
    lib: ["es2024", "esnext.disposable"],
    module: "nodenext",
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
  },
};

/** A host's source; each mistake must be one. */
const USE = `import type { BoundCall, Pipeline } from "cjm-substrate";

export async function use({ bindings }: Pick<Pipeline, "bindings">): Promise<string> {
  const result = await bindings.sandbox.run({ code: "1", language: "python" });
  const text: string = result.stdout;
  // @ts-expect-error a language there is not
  void bindings.sandbox.run({ code: "1", language: "cobol" });
  // @ts-expect-error an argument there is not
  void bindings.sandbox.run({ code: "1", langauge: "python" });
  // @ts-expect-error an action there is not
  void bindings.sandbox.walk();
  // @ts-expect-error an instance there is not
  void bindings.oven;
  // @ts-expect-error resolve_dtype must be told of what
  void bindings["gpu-monitor"].resolve_dtype();
  // @ts-expect-error a result there is not
  result.nothing;
  for await (const chunk of bindings["gpu-monitor"].watch({ hz: 1 })) void chunk;
  const other: BoundCall<typeof result> = bindings.jail.run({ code: "1" });
  await other;
  return text;
}
`;

/** A project that depends on the built package. */
async function project(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await temporaryFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  await mkdir(join(folder.path, "node_modules"));
  await symlink(ROOT, join(folder.path, "node_modules", "cjm-substrate"));
  await writeFile(join(folder.path, "package.json"), JSON.stringify({ type: "module" }));
  await writeFile(join(folder.path, "tsconfig.json"), JSON.stringify(TSCONFIG));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder.path, name), text);
  return folder.path;
}

async function compile(cwd: string): Promise<string> {
  const tsc = join(ROOT, "node_modules/.bin/tsc");
  const { stdout } = await execa(tsc, ["-p", "."], { cwd, reject: false });
  return stdout;
}

describe("pipeline.bindings", () => {
  let types = "";
  beforeAll(async () => {
    await using folder = await temporaryFolder();
    const args = ["types", "--instance", "jail=sandbox"];
    ({ stdout: types } = await runCli(args, { dataDir: folder.path }));
  });

  test("is typed by what `cjm-ctl types` writes", async () => {
    expect(await compile(await project({ "capabilities.d.ts": types, "use.ts": USE }))).toBe("");
  });

  test("takes any capability without it", async () => {
    const source = `import type { Pipeline } from "cjm-substrate";
export const use = ({ bindings }: Pick<Pipeline, "bindings">) => bindings["any"]?.["run"]?.({ a: 1 });
export const task = ({ bindings }: Pick<Pipeline, "bindings">) =>
  bindings["any"]?.tasks["greeting"]?.["greet"]?.({ who: "you" });
`;
    expect(await compile(await project({ "use.ts": source }))).toBe("");
  });
});

test("`types --check` fails for a file that is stale and passes for one that is not", async () => {
  await using folder = await temporaryFolder();
  const dataDir = folder.path;
  const out = join(folder.path, "capabilities.d.ts");
  const check = (): ReturnType<typeof runCli> =>
    runCli(["types", "--out", out, "--check"], { dataDir });
  expect((await check()).exitCode).toBe(1);
  await runCli(["types", "--out", out], { dataDir });
  expect((await check()).exitCode).toBe(0);
});
