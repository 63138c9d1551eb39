import { existsSync } from "node:fs";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { sha256 } from "../../../src/util/canonical-json.ts";

const source = (path: string): string =>
  fileURLToPath(new URL(`../../../${path}`, import.meta.url));

let project = "";
beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "cjm-commands-"));
  await cp(source("test/fixtures/projects/greeters"), project, { recursive: true });
  await writeFile(join(project, "cjm.yaml"), "");
  await writeFile(
    join(project, "capabilities.yaml"),
    "capabilities:\n  - name: in-place\n    path: in-place\n    env: path\n    interface_libs: [some-library]\n    python_version: '3'\n",
  );
});
afterEach(() => rm(project, { recursive: true, force: true }));

interface Answer {
  readonly exitCode: number | undefined;
  readonly out: string;
  readonly err: string;
}
async function cjmCtl(...args: string[]): Promise<Answer> {
  const result = await execa(
    process.execPath,
    ["--conditions=@cjm/source", source("src/cli/main.ts"), ...args],
    { cwd: project, reject: false, stdin: "ignore" },
  );
  return { exitCode: result.exitCode, out: result.stdout, err: result.stderr };
}

describe("cjm-ctl", () => {
  test("describes an installed worker again and removes it", async () => {
    expect((await cjmCtl("install-all")).exitCode).toBe(0);
    const manifest = join(project, ".cjm/manifests/in-place.json");
    const again = await cjmCtl("regenerate-manifest", "in-place", "--json");
    expect(JSON.parse(again.out)).toEqual({ name: "in-place", manifest });

    const unasked = await cjmCtl("remove", "in-place");
    expect(unasked).toMatchObject({ exitCode: 2, out: "" });
    expect(unasked.err).toContain("use --yes");
    expect(existsSync(manifest)).toBe(true);

    const removed = await cjmCtl("remove", "in-place", "--yes");
    expect(removed).toMatchObject({ exitCode: 0, out: `removed  ${manifest}` });
    const missing = await cjmCtl("remove", "in-place", "-y");
    expect(missing.exitCode).toBe(3);
    expect(missing.err).toContain('holds no manifest of "in-place"');
  });

  test("says that a worker without Python has no adapters to describe", async () => {
    await cjmCtl("install-all");
    const answer = await cjmCtl("generate-adapter-manifest", "in-place", "module:Adapter");
    expect(answer.exitCode).toBe(1);
    expect(answer.err).toContain('"in-place" has no Python');
  });

  test("lists what the host would share, and installs nothing unasked", async () => {
    const answer = await cjmCtl("setup-host");
    expect(answer).toMatchObject({ exitCode: 2, out: "npm     some-library" });
    expect(answer.err).toContain("use --yes");
    expect(existsSync(join(project, "node_modules"))).toBe(false);
  });

  test("sets up micromamba from a file of this machine", async () => {
    await writeFile(join(project, "cjm.yaml"), "runtime:\n  mode: local\n");
    await writeFile(join(project, "mm"), "#!/bin/sh\n");
    const args = ["--conda-type", "micromamba", "setup-runtime", "--file", "mm"];
    const refused = await cjmCtl(...args);
    expect(refused.exitCode).toBe(1);
    expect(refused.err).toContain("Nothing was installed");
    const checksum = sha256("#!/bin/sh\n").slice("sha256:".length);
    const installed = await cjmCtl(...args, "--sha256", checksum);
    expect(installed.out).toBe(`installed  ${join(project, ".cjm/runtime/bin/micromamba")}`);
  });
});
