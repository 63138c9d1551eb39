import { execFile } from "node:child_process";
import { lstat, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { prepareRunFolder, runFolderPath } from "../../../src/process/index.ts";
import type { Pipeline } from "../../../src/index.ts";
import { SecretStore } from "../../../src/store/index.ts";
import { Project } from "../capability/support.ts";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";

const run = promisify(execFile);
const NOBODY = "65534";
const isRoot = process.getuid?.() === 0;

let project: Project;
let pipeline: Pipeline;
let runFolder = "";
beforeAll(async () => {
  project = await Project.create();
  await project.add("life");
  const data = join(project.folder, "data");
  await new SecretStore(data).set({ capability: "life", key: "LIFE_KEY" }, "of this user only");
  pipeline = await project.open({ capabilities: ["life"] });
  await pipeline.manager.instance("life").ensureReady();
  runFolder = runFolderPath(data);
});
afterAll(async () => {
  await pipeline[Symbol.asyncDispose]();
  await project[Symbol.asyncDispose]();
});

test("every socket is 0600 in a folder that is 0700 and this user's", async () => {
  const folder = await lstat(runFolder);
  expect(folder.mode & 0o777).toBe(0o700);
  expect(folder.uid).toBe(process.getuid?.());
  const names = await readdir(runFolder);
  expect(names).toContain("host.sock");
  expect(names.length).toBeGreaterThanOrEqual(2);
  for (const name of names) {
    const socket = await lstat(join(runFolder, name));
    expect(socket.isSocket()).toBe(true);
    expect(socket.mode & 0o777, name).toBe(0o600);
  }
});

test("secrets are 0600 in 0700, and a new data directory is nobody else's", async () => {
  const data = join(project.folder, "data");
  expect((await stat(join(data, "secrets"))).mode & 0o777).toBe(0o700);
  expect((await stat(join(data, "secrets/secrets.json"))).mode & 0o777).toBe(0o600);
  await using fresh = await Project.create();
  await using other = await fresh.open({ dataDir: join(fresh.folder, "new") });
  expect((await stat(other.config.dataDir)).mode & 0o777).toBe(0o700);
});

/** Tries, as another user, to connect to a socket or to read a file. */
async function asNobody(what: "connect" | "read", path: string): Promise<string> {
  const script =
    what === "connect"
      ? "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('in')"
      : "import sys; print(len(open(sys.argv[1],'rb').read()), 'bytes')";
  const user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"];
  // The interpreter of the system: another user may not reach the one in this user's home.
  const args = [...user, "/usr/bin/python3", "-c", script, path];
  return await run("setpriv", args, { cwd: "/" }).then(
    ({ stdout }) => stdout.trim(),
    (error: unknown) =>
      /\w*Error: .*/u.exec(String((error as { stderr?: string }).stderr))?.[0] ?? "?",
  );
}

describe.skipIf(!isRoot)("another user of the machine", () => {
  test("can connect to nothing and read nothing", async () => {
    for (const name of await readdir(runFolder)) {
      expect(await asNobody("connect", join(runFolder, name)), name).toContain("Permission denied");
    }
    const secrets = join(project.folder, "data/secrets/secrets.json");
    expect(await asNobody("read", secrets)).toContain("Permission denied");
    const { pid } = pipeline.manager.instance("life");
    expect(await asNobody("read", `/proc/${pid}/environ`)).toContain("Permission denied");
    expect(await asNobody("read", "/etc/hostname")).toContain("bytes");
  });

  test("cannot put a folder of its own where a host's sockets will be", async () => {
    const folder = await mkdtemp("/tmp/cjm-planted-");
    try {
      const planted = join(folder, "run");
      await mkdir(planted, { mode: 0o700 });
      await run("chown", [NOBODY, planted]);
      await expect(prepareRunFolder(planted)).rejects.toMatchObject({ code: "FILE_INVALID" });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

test("a link, or a folder others may enter, is not taken as the run folder", async () => {
  const folder = await mkdtemp("/tmp/cjm-planted-");
  try {
    const real = join(folder, "real");
    await mkdir(real, { mode: 0o755 });
    await symlink(real, join(folder, "link"));
    for (const name of ["real", "link"]) {
      await expect(prepareRunFolder(join(folder, name))).rejects.toMatchObject({
        code: "FILE_INVALID",
      });
    }
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("no argument of any process holds a worker's token, and no environment does", async () => {
  const worker = await pipeline.manager.instance("life").ensureReady();
  const { token } = worker.connection.worker;
  expect(token).toMatch(/^[0-9a-f]{64}$/u);
  expect(await processesThatShow(token)).toEqual([]);
});

/** `pid file` of every command line and environment that holds the text. */
async function processesThatShow(text: string): Promise<string[]> {
  const { stdout } = await run("sh", [
    "-c",
    'grep -alF "$0" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -v "^/proc/$$/" || true',
    text,
  ]);
  // The search itself has the text in its arguments.
  const own = (file: string): boolean => !file.includes(`/${process.pid}/`);
  const found = stdout.split("\n").filter((line) => line !== "" && own(line));
  return found.filter((file) => file.endsWith("environ"));
}
