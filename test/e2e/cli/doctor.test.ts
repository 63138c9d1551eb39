import { mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { type CliOptions, runCli, temporaryFolder } from "../../support/cli.ts";

const answerSchema = z.object({
  checks: z.array(
    z.object({
      name: z.string(),
      state: z.enum(["ok", "warning", "failed"]),
      detail: z.string(),
      fix: z.string().nullable(),
    }),
  ),
});
type Checks = ReadonlyMap<string, z.output<typeof answerSchema>["checks"][number]>;

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let dataDir = "";
beforeEach(async () => {
  folder = await temporaryFolder();
  dataDir = join(folder.path, "data");
});
afterEach(() => folder[Symbol.asyncDispose]());

async function doctor(
  env: CliOptions["env"] = {},
): Promise<{ readonly checks: Checks; readonly exitCode: number | undefined }> {
  const options = { dataDir, cwd: folder.path, env };
  const { stdout, stderr, exitCode } = await runCli(["doctor", "--json"], options);
  expect(stderr).not.toContain("    at ");
  const { checks } = answerSchema.parse(JSON.parse(stdout));
  for (const { state, fix } of checks) if (state !== "ok") expect(fix).toBeTruthy();
  return { checks: new Map(checks.map((check) => [check.name, check])), exitCode };
}

describe("doctor says what is wrong and what to do about it", () => {
  test("programs that are not on PATH", async () => {
    const bin = join(folder.path, "bin");
    await mkdir(bin);
    await symlink(process.execPath, join(bin, "node"));
    const { checks } = await doctor({ PATH: bin });
    expect(checks.get("npm")).toMatchObject({ state: "failed", detail: 'no "npm" on PATH' });
    expect(checks.get("python")).toMatchObject({ state: "failed" });
    expect(checks.get("jail")?.detail).toContain('no "bwrap" on PATH; no "nsjail" on PATH');
    expect(checks.get("jail")?.fix).toContain("install bubblewrap");
  });

  test("an npm that fails", async () => {
    const bin = join(folder.path, "bin");
    await mkdir(bin);
    await writeFile(join(bin, "npm"), "#!/bin/sh\necho its own words >&2\nexit 7\n", {
      mode: 0o755,
    });
    const { checks } = await doctor({ PATH: `${bin}:${process.env["PATH"] ?? ""}` });
    expect(checks.get("npm")).toMatchObject({ state: "failed", detail: "its own words" });
  });

  test("secrets that others can read", async () => {
    const path = join(dataDir, "secrets", "secrets.json");
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, "{}", { mode: 0o644 });
    const { checks, exitCode } = await doctor();
    expect(checks.get("secrets")).toMatchObject({ state: "failed", fix: `chmod 600 ${path}` });
    expect(exitCode).toBe(3);
  });

  test("databases that are none", async () => {
    await mkdir(dataDir);
    for (const name of ["journal.db", "diagnostics.db"]) {
      await writeFile(
        join(dataDir, name),
        "no database, and long enough to be looked at ".repeat(99),
      );
    }
    const { checks, exitCode } = await doctor();
    expect(checks.get("journal")?.state).toBe("failed");
    expect(checks.get("journal")?.fix).toContain("restore journal.db from a backup");
    expect(checks.get("diagnostics")?.state).toBe("warning");
    expect(exitCode).toBe(3);
  });

  test("an environment that is broken, and one that was never made", async () => {
    const worker = join(folder.path, "mine");
    await mkdir(worker);
    await writeFile(join(worker, "capability.py"), "from cjm_worker import Capability\n");
    await writeFile(join(worker, "pyproject.toml"), '[project]\nname = "mine"\nversion = "1"\n');
    await writeFile(
      join(folder.path, "capabilities.yaml"),
      "capabilities:\n  - { name: mine, path: mine, env: venv }\n",
    );
    const { checks } = await doctor();
    const mine = checks.get("environment mine");
    expect(mine?.state).toBe("warning");
    expect(mine?.fix).toContain("cjm-ctl install-all");
  });

  test("a data directory on a file system that is full", async () => {
    await writeFile(join(folder.path, "cjm.yaml"), "queue:\n  min_free_disk_mb: 1000000000\n");
    const { checks } = await doctor();
    expect(checks.get("disk")?.state).toBe("failed");
    expect(checks.get("disk")?.fix).toContain("make room");
  });
});
