import { chmod, cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadConfig, loadManifests } from "../../../src/config/index.ts";
import { installAll, type InstallResult } from "../../../src/provision/index.ts";

const FIXTURES = fileURLToPath(new URL("../../fixtures/projects", import.meta.url));
const hasUv = await execa("uv", ["--version"], { reject: false }).then((result) => !result.failed);

let project = "";
beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "cjm-python-"));
});
afterEach(() => rm(project, { recursive: true, force: true }));

async function install(env: NodeJS.ProcessEnv = process.env): Promise<InstallResult> {
  const config = await loadConfig({ cwd: project, env: {} });
  const [result] = await installAll({ config, env });
  if (result === undefined) throw new Error("nothing was installed");
  return result;
}

const manifests = async (): Promise<Awaited<ReturnType<typeof loadManifests>>> =>
  loadManifests([join(project, ".cjm/manifests")]);

describe("conda", () => {
  /** Records how it is called and makes a real environment where conda would. */
  const STUB = `#!/bin/sh
echo "$MAMBA_ROOT_PREFIX|$@" >> "$(dirname "$0")/calls"
while [ "$1" != "--prefix" ]; do shift; done
exec python3 -m venv --system-site-packages --without-pip "$2"
`;
  async function withStub(conda: string, extra: string): Promise<void> {
    await cp(join(FIXTURES, "greeters"), project, { recursive: true });
    await writeFile(join(project, "conda-stub"), STUB);
    await chmod(join(project, "conda-stub"), 0o755);
    const platform = `${process.platform}-${process.arch}`;
    await writeFile(
      join(project, "cjm.yaml"),
      `runtime:\n  mode: local\n  conda_type: ${conda}\n  prefix: runtime\n  binaries:\n    ${platform}: conda-stub\n`,
    );
    await writeFile(
      join(project, "capabilities.yaml"),
      `capabilities:\n  - name: py-greeter\n    path: py-greeter\n    entry: py_greeter:Greeter\n${extra}`,
    );
  }
  const calls = async (): Promise<string> =>
    (await readFile(join(project, "calls"), "utf8")).trim();

  test("is the kind of a Python worker where the project has a runtime of its own", async () => {
    await withStub("micromamba", '    python_version: "3.12"\n');
    const result = await install();
    expect(result).toMatchObject({ kind: "conda", outcome: "installed" });
    expect(await calls()).toBe(
      `${join(project, "runtime")}|create --yes --prefix ${result.folder} python=3.12 pip`,
    );
    const { capabilities } = await manifests();
    expect(capabilities.get("py-greeter")?.manifest.install).toMatchObject({
      runtime: "conda",
      python_path: join(result.folder ?? "", "bin/python"),
    });
  });

  test("makes an environment from a file by each program's own verb", async () => {
    await withStub("miniforge", "    env_file: environment.yml\n");
    await writeFile(join(project, "environment.yml"), "dependencies: [python=3.12, pip]\n");
    const { folder } = await install();
    expect(await calls()).toBe(
      `|env create --yes --prefix ${folder} --file ${join(project, "environment.yml")}`,
    );
  });

  test("says how to get a runtime that is not there", async () => {
    await withStub("micromamba", "");
    await rm(join(project, "conda-stub"));
    expect((await install()).error?.message).toContain("run `cjm-ctl setup-runtime`");
  });
});

describe("uv", () => {
  async function withGreeter(extra = ""): Promise<void> {
    await cp(join(FIXTURES, "greeters"), project, { recursive: true });
    await writeFile(
      join(project, "capabilities.yaml"),
      `capabilities:\n  - name: py-greeter\n    path: py-greeter\n    entry: py_greeter:Greeter\n    env: uv\n${extra}`,
    );
  }

  test.skipIf(!hasUv)("makes an environment that its worker starts from", async () => {
    await withGreeter();
    const result = await install();
    expect(result.error).toBeUndefined();
    expect(result).toMatchObject({ kind: "uv", outcome: "installed" });
    const { capabilities } = await manifests();
    expect(capabilities.get("py-greeter")?.manifest.install.runtime).toBe("uv");
    expect((await install()).outcome).toBe("unchanged");
  });

  test.skipIf(!hasUv)("installs a locked project exactly", async () => {
    await withGreeter();
    await writeFile(
      join(project, "py-greeter/pyproject.toml"),
      '[project]\nname = "py-greeter"\nversion = "1.0.0"\nrequires-python = ">=3.9"\ndependencies = ["idna==3.10"]\n\n[build-system]\nrequires = ["setuptools>=61"]\nbuild-backend = "setuptools.build_meta"\n\n[tool.setuptools]\npy-modules = ["py_greeter"]\n',
    );
    await execa("uv", ["lock"], { cwd: join(project, "py-greeter") });
    const { error, folder } = await install();
    expect(error).toBeUndefined();
    const python = join(folder ?? "", "bin/python");
    const { stdout } = await execa(python, ["-c", "import idna; print(idna.__version__)"]);
    expect(stdout).toBe("3.10");
  });

  test("says that uv is missing", async () => {
    await withGreeter();
    const path = (process.env["PATH"] ?? "").split(delimiter);
    const withoutUv = path.filter((folder) => !folder.includes("uv"));
    const { error } = await install({ ...process.env, PATH: withoutUv.join(delimiter) });
    expect(error).toMatchObject({ code: "SETUP_REQUIRED" });
    expect(error?.message).toContain("install it, for example with `pip install uv`");
  });
});
