import { createHash } from "node:crypto";
import { appendFile, cp, glob, lstat, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hostPackage } from "../../../src/config/index.ts";
import { runCli, temporaryFolder, type CliResult } from "../../support/cli.ts";

const FIXTURES = fileURLToPath(new URL("../../fixtures/projects/greeters", import.meta.url));

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let dataDir = "";
beforeAll(async () => {
  folder = await temporaryFolder();
  dataDir = join(folder.path, "data");
  await cp(FIXTURES, folder.path, { recursive: true });
  await writeFile(
    join(folder.path, "capabilities.yaml"),
    `capabilities:
  - { name: js-greeter, path: js-greeter }
  - { name: py-script, path: py-script, entry: main.py }
`,
  );
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

const install = (...args: readonly string[]): Promise<CliResult> =>
  runCli(["install-all", ...args], { dataDir, cwd: folder.path });

/** Content, mode and time of every file of the data directory. */
async function picture(): Promise<string> {
  const hash = createHash("sha256");
  const names = await Array.fromAsync(glob("**/*", { cwd: dataDir }));
  for (const name of names.sort()) {
    const path = join(dataDir, name);
    const { mode, mtimeMs, size } = await lstat(path);
    hash.update(`${name} ${mode} ${mtimeMs} ${size}\n`);
    if ((await lstat(path)).isFile()) hash.update(await readFile(path));
  }
  return hash.digest("hex");
}

describe("install-all", () => {
  test("changes no byte the second time", async () => {
    const first = await install();
    expect(first.exitCode, first.stdout + first.stderr).toBe(0);
    const before = await picture();
    const second = await install();
    expect(second.stdout.match(/unchanged/gu)).toHaveLength(2);
    expect(await picture()).toBe(before);
  });

  test("keeps what it finds through a link to the data directory", async () => {
    const link = join(folder.path, "link");
    await symlink(dataDir, link);
    const { stdout, stderr } = await runCli(["install-all", "--json"], {
      dataDir: link,
      cwd: folder.path,
    });
    expect(stderr).not.toContain("removed");
    expect(JSON.parse(stdout)).toMatchObject([{ outcome: "unchanged" }, { outcome: "unchanged" }]);
    expect((await install()).stdout.match(/unchanged/gu)).toHaveLength(2);
  });

  test("acts on a file that is gone and on a source that has changed", async () => {
    const [library] = await Array.fromAsync(
      glob("envs/js-greeter/*/node_modules/exclaim/index.js", { cwd: dataDir }),
    );
    await rm(join(dataDir, library ?? ""));
    const repaired = await install("--json");
    expect(JSON.parse(repaired.stdout)).toMatchObject([
      { name: "js-greeter", outcome: "installed" },
      { name: "py-script", outcome: "unchanged" },
    ]);
    const source = join(folder.path, "py-script/main.py");
    await writeFile(source, (await readFile(source, "utf8")).replace("1.0.0", "1.0.1"));
    const renewed = await install("--json");
    expect(JSON.parse(renewed.stdout)).toMatchObject([
      { name: "js-greeter", outcome: "unchanged" },
      { name: "py-script", outcome: "installed" },
    ]);
  });

  test("takes the Python SDK from --substrate-source instead", async () => {
    const own = join(folder.path, "sdk");
    const { root } = hostPackage();
    await cp(join(root, "python"), own, {
      recursive: true,
      filter: (path) => !/__pycache__|egg-info|\/tests(?:\/|$)/u.test(path),
    });
    await appendFile(join(own, "src/cjm_worker/__init__.py"), "\nOF_MY_OWN = True\n");
    const result = await install("--only", "py-script", "--substrate-source", own, "--json");
    expect(result.exitCode, result.stderr).toBe(0);
    const [sdk] = await Array.fromAsync(
      glob("envs/py-script/*/lib/python*/site-packages/cjm_worker/__init__.py", { cwd: dataDir }),
    );
    expect(await readFile(join(dataDir, sdk ?? ""), "utf8")).toContain("OF_MY_OWN");
  });

  test("names every capability that is not there, with what may be meant", async () => {
    const { exitCode, stderr } = await install("--only", "js-greter");
    expect(exitCode).toBe(2);
    expect(stderr).toContain('did you mean "js-greeter"');
  });
});
