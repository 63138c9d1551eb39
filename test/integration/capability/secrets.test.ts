import { execFile } from "node:child_process";
import { chmod, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, test } from "vitest";
import type { Pipeline } from "../../../src/index.ts";
import { SecretStore } from "../../../src/store/index.ts";
import { containing, failure, Project, rows, run, until } from "./support.ts";

const SECRET = "s3cr3t/with+odd=characters&more";
const ROOT = join(import.meta.dirname, "../../..");

let project: Project;
beforeAll(async () => {
  project = await Project.create();
  await project.add("life");
});
afterAll(() => project[Symbol.asyncDispose]());

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `cjm-ctl` from source in the project. */
async function cjmCtl(
  args: readonly string[],
  input = "",
  dataDir = join(project.folder, "data"),
): Promise<Ran> {
  const main = join(ROOT, "src/cli/main.ts");
  const running = promisify(execFile)(
    process.execPath,
    ["-C", "@cjm/source", main, "--data-dir", dataDir, ...args],
    { cwd: project.folder },
  );
  running.child.stdin?.end(input);
  return await running.then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: unknown) => error as Ran,
  );
}

describe("with a live host", () => {
  let pipeline: Pipeline;
  beforeEach(async () => {
    pipeline = await project.open();
  });
  afterEach(() => pipeline[Symbol.asyncDispose]());

  test("set-secret gives a running worker the new value, and it shows up nowhere", async () => {
    expect(await run(pipeline, "life", "tell")).toBe(0);
    const before = pipeline.manager.instance("life").pid;
    const set = await cjmCtl(["set-secret", "life", "LIFE_KEY", "--stdin"], `${SECRET}\n`);
    expect(set).toMatchObject({ code: 0, stdout: containing("Instance life has a new worker") });
    expect(pipeline.manager.instance("life").pid).not.toBe(before);
    expect(await run(pipeline, "life", "tell")).toBe(SECRET.length);
    expect(await rows(pipeline, "secret_changed")).toMatchObject([
      { capabilityName: "life", payload: { key: "LIFE_KEY", change: "set" } },
    ]);

    const handle = await pipeline.queue.submit("life", {}, { action: "fail_with_secret" });
    const error = await failure(handle.result());
    expect(error).toMatchObject({ code: "CAPABILITY_INPUT", message: containing("[redacted]") });
    expect(JSON.stringify(await pipeline.queue.getJob(handle.id))).not.toContain(SECRET);

    await until(async () => (await rows(pipeline, "note")).length === 8);
    await until(async () => {
      await pipeline.diagnostics.flush();
      const printed = await pipeline.diagnostics.queryChunks({});
      return printed.filter(({ content }) => content.includes("printed [redacted]")).length >= 3;
    });
    await pipeline[Symbol.asyncDispose]();
    expect(await filesWithSecret()).toEqual([]);
  });
});

test("deleting a secret that a running worker must have is told, journaled, and leaves no worker", async () => {
  await using needing = await Project.create();
  const worker_env = [{ name: "LIFE_KEY", secret: true, required: true }];
  await needing.add("life", { code: { worker_env } });
  const dataDir = join(needing.folder, "data");
  const secrets = new SecretStore(dataDir);
  await secrets.set({ capability: "life", key: "LIFE_KEY" }, SECRET);
  await using pipeline = await needing.open({ capabilities: ["life"] });
  const pid = pipeline.manager.instance("life").pid;
  expect(pid).not.toBeNull();
  const deleted = await cjmCtl(["set-secret", "life", "LIFE_KEY", "--delete"], "", dataDir);
  expect(deleted).toMatchObject({
    code: 1,
    stdout: "Deleted life/LIFE_KEY.\n",
    stderr: containing("Instance life has no worker: "),
  });
  expect(pipeline.manager.instance("life").state).toBe("absent");
  expect(await rows(pipeline, "secret_changed")).toMatchObject([
    { payload: { key: "LIFE_KEY", change: "delete" } },
  ]);
});

/** Every file below the data directory, the secrets file apart, that holds the secret in any form. */
async function filesWithSecret(): Promise<string[]> {
  const forms = [
    SECRET,
    encodeURIComponent(SECRET),
    Buffer.from(SECRET).toString("base64").slice(0, 20),
    Buffer.from(`user:${SECRET}`).toString("base64").slice(8, 28),
  ];
  const entries = await readdir(join(project.folder, "data"), {
    recursive: true,
    withFileTypes: true,
  });
  const found: string[] = [];
  for (const entry of entries.filter((one) => one.isFile() && one.name !== "secrets.json")) {
    const path = join(entry.parentPath, entry.name);
    const content = await readFile(path, "latin1");
    if (forms.some((form) => content.includes(form))) found.push(path);
  }
  return found;
}

describe("the command line", () => {
  test("refuses a value on the command line and says what to do", async () => {
    expect(await cjmCtl(["set-secret", "life", "LIFE_KEY", "--value", SECRET])).toMatchObject({
      code: 2,
      stderr: containing("--stdin"),
    });
  });

  test("refuses a short value, and to ask where nobody is", async () => {
    const short = await cjmCtl(["set-secret", "life", "LIFE_KEY", "--stdin"], "short\n");
    expect(short).toMatchObject({ code: 2, stderr: containing("fewer than 8 characters") });
    expect(await cjmCtl(["set-secret", "life", "LIFE_KEY"])).toMatchObject({
      code: 2,
      stderr: containing("give the value with --stdin"),
    });
  });

  test("lists names and states, never values, and deletes", async () => {
    const secrets = new SecretStore(join(project.folder, "data"));
    await secrets.set({ capability: "life", key: "LIFE_KEY" }, SECRET);
    await secrets.set({ capability: "life", key: "OLD_KEY" }, SECRET);
    expect((await stat(join(project.folder, "data/secrets/secrets.json"))).mode & 0o777).toBe(
      0o600,
    );
    const listed = await cjmCtl(["list-secrets", "life"]);
    expect(listed.stdout).toMatch(/LIFE_KEY\s+set\n/u);
    expect(listed.stdout).toMatch(/OLD_KEY\s+set \(no capability declares it\)/u);
    expect(listed.stdout).not.toContain(SECRET);
    const deleted = await cjmCtl(["set-secret", "life", "OLD_KEY", "--delete"]);
    expect(deleted.stdout).toBe("Deleted life/OLD_KEY.\n");
    const again = await cjmCtl(["set-secret", "life", "OLD_KEY", "--delete"]);
    expect(again).toMatchObject({ code: 2, stderr: "There is no secret life/OLD_KEY.\n" });
    await using pipeline = await project.open();
    const changes = await rows(pipeline, "secret_changed");
    expect(changes.at(-1)).toMatchObject({
      capabilityName: "life",
      payload: { key: "OLD_KEY", change: "delete" },
    });
    expect(JSON.stringify(changes)).not.toContain(SECRET);
  });
});

test("a secrets file that is torn, or that others may read, is refused and left as it is", async () => {
  await using damaged = await Project.create();
  const path = join(damaged.folder, "data/secrets/secrets.json");
  const secrets = new SecretStore(join(damaged.folder, "data"));
  await secrets.set({ capability: "life", key: "LIFE_KEY" }, SECRET);
  const whole = await readFile(path, "utf8");
  await chmod(path, 0o644);
  expect(await failure(damaged.open())).toMatchObject({
    code: "SECRET_INVALID",
    message: containing("chmod 600"),
  });
  await chmod(path, 0o600);
  const torn = whole.slice(0, whole.length / 2);
  await writeFile(path, torn);
  const error = await failure(damaged.open());
  expect(error).toMatchObject({ code: "SECRET_INVALID" });
  expect(String(error)).not.toContain(SECRET);
  const set = secrets.set({ capability: "life", key: "OTHER" }, SECRET);
  expect(await failure(set)).toMatchObject({ code: "SECRET_INVALID" });
  expect(await readFile(path, "utf8")).toBe(torn);
});
