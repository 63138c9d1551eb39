import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DiagnosticsStore, openJournalDatabase } from "../../../src/store/index.ts";
import { failure, fixtureCommand, Project, run } from "../capability/support.ts";

const MAIN = join(import.meta.dirname, "../../../src/cli/main.ts");
/** Sets the title, clears the screen, hides what follows, rings, goes back, and eight-bit forms. */
const EVIL = "\u001b]0;owned\u0007\u001b[2J\u001b[8m\u0008\r\u009b2J\u009d0;x\u009c\u007f\u001bc";

let project: Project;
beforeAll(async () => {
  project = await Project.create();
  await project.add("echo");
});
afterAll(() => project[Symbol.asyncDispose]());

async function cjmCtl(dataDir: string, ...args: readonly string[]): Promise<string> {
  const argv = ["-C", "@cjm/source", MAIN, "--data-dir", dataDir, ...args];
  const done = await promisify(execFile)(process.execPath, argv, {
    cwd: project.folder,
    env: { ...process.env, FORCE_COLOR: "" },
  }).catch((error: unknown) => error as { stdout: string; stderr: string });
  return `${done.stdout}${done.stderr}`;
}

describe("control sequences of a worker", () => {
  test("reach no terminal, whatever field they are in", async () => {
    const dataDir = join(project.folder, "evil");
    await mkdir(dataDir, { mode: 0o700 });
    {
      await using diagnostics = await DiagnosticsStore.open(join(dataDir, "diagnostics.db"));
      diagnostics.appendRecord({
        message: `message ${EVIL}`,
        level: `l${EVIL}`,
        loggerName: `logger ${EVIL}`,
        ts: EVIL,
        jobId: EVIL,
        workerSessionId: EVIL,
        excText: `exception ${EVIL}`,
      });
      diagnostics.appendChunk({
        content: `output ${EVIL}`,
        stream: "stdout",
        workerSessionId: "s",
      });
      await using store = await openJournalDatabase(join(dataDir, "journal.db"));
      await store.stage([
        {
          op: "job.insert",
          job: {
            id: "job-1",
            capabilityInstanceId: "echo",
            kwargs: {},
            control: {},
            priority: 0,
            status: "failed",
            submittedAt: "2026-01-01T00:00:00.000Z",
            statusMessage: EVIL,
          },
        },
        { op: "journal.append", event: { eventType: "job_submitted", jobId: "job-1" } },
        {
          op: "journal.append",
          event: { eventType: `type ${EVIL}`, jobId: "job-1", payload: { [EVIL]: EVIL } },
        },
        {
          op: "journal.append",
          event: {
            eventType: "state_transition",
            jobId: "job-1",
            payload: { from: EVIL, to: EVIL, job_snapshot: { error: { message: EVIL } } },
          },
        },
      ]);
    }
    const shown = await Promise.all(
      [["logs"], ["logs", "--chunks"], ["logs", "--journal"], ["explain", "job-1"]].map((args) =>
        cjmCtl(dataDir, ...args),
      ),
    );
    for (const text of shown) {
      // oxlint-disable-next-line no-control-regex -- exactly these must not be there
      expect(text).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/u);
    }
    expect(shown[0]).toContain("message ");
    expect(shown[1]).toContain("output ");
    expect(shown[2]).toContain("type ");
  });
});

describe("names and values that are put where they do not belong", () => {
  test("an instance, a job or a capability that is a path is unknown or refused", async () => {
    await using pipeline = await project.open({ capabilities: ["echo"] });
    for (const name of ["../echo", "/etc", "a/b", "..", "", "a\u0000b", "-x"]) {
      expect(await failure(pipeline.queue.submit(name, {}))).toMatchObject({
        category: expect.stringMatching(/user_input|fatal/u) as unknown,
      });
      const load = pipeline.manager.load({ capability: "echo", instanceId: name });
      if (name !== "-x") {
        expect(await failure(load)).toMatchObject({ category: "user_input" });
      }
      await load.catch(() => undefined);
      expect(await pipeline.queue.getJob(name)).toBe(undefined);
      expect(await pipeline.queue.cancel(name)).toBe(false);
    }
    expect(await run(pipeline, "echo", "say", { text: EVIL })).toEqual({ text: EVIL });
  });

  test("a manifest cannot put a zero byte into a command or an environment", async () => {
    await using other = await Project.create();
    const command = fixtureCommand("echo");
    await other.addRaw("echo", "env", { install: { command, env_vars: { A: "1\u0000B=2" } } });
    await other.addRaw("echo", "argv", { install: { command: [...command, "a\u0000b"] } });
    await other.addRaw("echo", "dash", { install: { command: ["--help"] } });
    await using pipeline = await other.open();
    for (const name of ["env", "argv", "dash"]) {
      const error = await failure(pipeline.manager.load({ capability: name }));
      expect(error, name).toMatchObject({
        code: expect.stringMatching(
          /CAPABILITY_UNKNOWN|CAPABILITY_NOT_INSTALLED|WORKER_EXITED/u,
        ) as unknown,
      });
    }
  });

  test("a manifest's environment cannot replace the protocol's own", async () => {
    await using other = await Project.create();
    const env_vars = {
      CJM_WORKER_SESSION_ID: "forged",
      CJM_CONTROL_FD: "99",
      CJM_LISTEN: "tcp:127.0.0.1:0",
      CAPABILITY_DATA_DIR: "/",
    };
    await other.add("life", { install: { command: fixtureCommand("life"), env_vars } });
    await using pipeline = await other.open({ capabilities: ["life"] });
    const environment = (await run(pipeline, "life", "environment")) as Record<string, string>;
    expect(environment["CJM_WORKER_SESSION_ID"]).not.toBe("forged");
    expect(environment["CJM_CONTROL_FD"]).toBe("3");
    expect(environment["CJM_LISTEN"]).toMatch(/^unix:/u);
    expect(environment["CAPABILITY_DATA_DIR"]).toContain(other.folder);
  });
});

test("a data directory that is a link is one with what it leads to", async () => {
  const folder = await mkdtemp("/tmp/cjm-linked-");
  try {
    await mkdir(join(folder, "real"), { mode: 0o700 });
    await symlink(join(folder, "real"), join(folder, "link"));
    await using first = await project.open({ dataDir: join(folder, "real") });
    expect(first.config.dataDir).toBe(join(folder, "real"));
    expect(await failure(project.open({ dataDir: join(folder, "link") }))).toMatchObject({
      code: "DATA_DIR_LOCKED",
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a worker that says it is elsewhere, or never answers, does not come up", async () => {
  await using other = await Project.create();
  await other.writeConfig("substrate:\n  start_timeout_seconds: 2\n");
  const script = (name: string, ready: string): string[] => [
    process.execPath,
    "-e",
    `const fs = require("fs"), net = require("net");
     const listen = process.env.CJM_LISTEN;
     net.createServer(() => {}).listen(listen.slice(5), () => fs.writeSync(3, JSON.stringify({
       type: "ready", protocol: 1, address: ${ready}, pid: process.pid, name: "${name}", version: "1" }) + "\\n"));`,
  ];
  const install = (name: string, ready: string): object => ({
    install: { command: script(name, ready) },
  });
  await other.addRaw("echo", "liar", install("liar", '"unix:/run/other.sock"'));
  await other.addRaw("echo", "mute", install("mute", "listen"));
  await using pipeline = await other.open();
  expect(await failure(pipeline.manager.load({ capability: "liar" }))).toMatchObject({
    code: "WORKER_HANDSHAKE",
  });
  expect(await failure(pipeline.manager.load({ capability: "mute" }))).toMatchObject({
    code: "WORKER_START_TIMEOUT",
  });
});

test("a worker that does not answer what only the host's check of drift asks is ready all the same", async () => {
  await using other = await Project.create();
  await other.writeConfig("substrate:\n  start_timeout_seconds: 2\n");
  const raw = new URL("../../fixtures/workers/raw-worker.ts", import.meta.url).href;
  const script = `import { serveRaw } from "${raw}"; serveRaw("deaf", () => undefined);`;
  const command = [process.execPath, "--input-type=module", "-e", script];
  await other.addRaw("echo", "deaf", { install: { command } });
  await using pipeline = await other.open();
  await pipeline.manager.load({ capability: "deaf" });
  expect(pipeline.manager.instance("deaf").state).toBe("ready");
});

test("diagnostics that wait are bounded by their size, and what is lost is told", async () => {
  const path = join(project.folder, "bounded", "diagnostics.db");
  await using diagnostics = await DiagnosticsStore.open(path, { capacityCharacters: 100_000 });
  for (let line = 0; line < 1_000; line += 1) {
    diagnostics.appendChunk({ content: `${line} ${"x".repeat(10_000)}`, stream: "stdout" });
  }
  await diagnostics.flush();
  expect(diagnostics.dropped).toBeGreaterThan(980);
  const kept = await diagnostics.queryChunks();
  expect(kept.at(-1)?.content.startsWith("999 ")).toBe(true);
  const told = await diagnostics.queryRecords();
  expect(told.map(({ message }) => message).join()).toContain("were dropped");
});
