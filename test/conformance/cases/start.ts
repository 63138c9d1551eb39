import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { codeSectionSchema, healthSchema, type ReadyFrame } from "../../../src/protocol/index.ts";
import { failureOf, memberOf, newJob, valueOf, type Case } from "../case.ts";
import { isAlive, type Target, type WorkerUnderTest } from "../worker-under-test.ts";

const isReady = (frame: { type: string }): frame is ReadyFrame => frame.type === "ready";

async function refusesGreeting(worker: WorkerUnderTest): Promise<void> {
  const { code } = await worker.end();
  assert.notEqual(code, 0);
  assert.ok(!worker.frames.some(isReady), "it reported ready");
}

function startCases(): Case[] {
  return [
    {
      title: "reports ready first but for logs, with its protocol, address and identity",
      fresh: async (start) => {
        const worker = await start();
        const ready = await worker.frame(isReady);
        const first = worker.frames.find((frame) => frame.type !== "log");
        assert.equal(first, ready);
        assert.equal(ready.protocol, 1);
        assert.equal(ready.address, worker.listenAddress);
        const health = healthSchema.parse(valueOf(await worker.get("/health")));
        assert.equal(health.name, ready.name);
        assert.equal(health.version, ready.version);
        assert.equal(health.pid, ready.pid);
        assert.equal(health.protocol, 1);
        assert.deepEqual(health.features, ready.features);
      },
    },
    {
      title: "makes a socket that only its owner can use",
      run: async (worker) => {
        const { mode } = statSync(worker.listenAddress.slice("unix:".length));
        assert.equal(mode & 0o077, 0);
      },
    },
    {
      title: "listens on TCP where it is told to, on the loopback only",
      fresh: async (start) => {
        const worker = await start({ listen: "tcp:127.0.0.1:0" });
        const { address } = await worker.frame(isReady);
        assert.match(address, /^tcp:127\.0\.0\.1:[1-9]\d*$/u);
        valueOf(await worker.get("/health"));
      },
    },
    {
      title: "refuses a foreign Host and any Origin on TCP, even with the token",
      fresh: async (start) => {
        const worker = await start({ listen: "tcp:127.0.0.1:0" });
        const foreign = await worker.get("/health", { headers: { host: "evil.example" } });
        assert.equal(foreign.status, 403);
        const page = await worker.get("/health", { headers: { origin: "http://evil.example" } });
        assert.equal(page.status, 403);
      },
    },
    {
      title: "ends without ready when the greeting names another protocol",
      fresh: async (start) => {
        const hello = JSON.stringify({ type: "hello", protocol: 99, token: "x".repeat(48) });
        await refusesGreeting(await start({ ready: false, hello }));
      },
    },
    {
      title: "ends without ready when the greeting is not JSON",
      fresh: async (start) => {
        await refusesGreeting(await start({ ready: false, hello: "good morning" }));
      },
    },
    {
      title: "ends without ready when the greeting has no token",
      fresh: async (start) => {
        const hello = JSON.stringify({ type: "hello", protocol: 1 });
        await refusesGreeting(await start({ ready: false, hello }));
      },
    },
    {
      title: "ends when the host is gone before it greets",
      fresh: async (start) => {
        const worker = await start({ ready: false, hello: null });
        worker.closeControl();
        await worker.end();
      },
    },
    {
      title: "ends without ready when it cannot listen",
      fresh: async (start) => {
        const worker = await start({ ready: false, listen: "unix:/no/such/folder/w.sock" });
        await refusesGreeting(worker);
      },
    },
    {
      title: "refuses calls before it is initialized",
      fresh: async (start) => {
        const worker = await start({ initialize: false });
        failureOf(await worker.execute("echo", { value: 1 }), "CAPABILITY_NOT_LOADED");
      },
      fixture: true,
    },
  ];
}

const exec = promisify(execFile);

/** Provisioning asks a worker what it is, without a host. */
export function introspectionCase(target: Target): Case {
  return {
    title: "prints what it is for CJM_INTROSPECT=1, the same as it serves",
    run: async (worker) => {
      const [program, ...args] = target.command;
      const env = { ...process.env, ...target.env, CJM_INTROSPECT: "1" };
      const { stdout } = await exec(program, args, { env, cwd: target.cwd });
      const code = codeSectionSchema.parse(JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? ""));
      const health = healthSchema.parse(valueOf(await worker.get("/health")));
      assert.equal(code.name, health.name);
      assert.equal(code.version, health.version);
      assert.equal(code.protocol, 1);
      assert.deepEqual(code.config_schema, valueOf(await worker.get("/config_schema")));
      assert.deepEqual(code.structural_surface, valueOf(await worker.get("/structural_surface")));
      assert.ok(Object.keys(code.actions ?? {}).length > 0);
    },
  };
}

async function spawnChild(worker: WorkerUnderTest): Promise<{ pid: number; fds: string[] }> {
  const reply = await worker.execute("spawn_child");
  const pid = Number(memberOf(reply, "pid"));
  const fds = memberOf(reply, "descriptors");
  assert.ok(Array.isArray(fds));
  return { pid, fds: fds.map(String) };
}

async function diesSoon(pid: number): Promise<void> {
  const limit = Date.now() + 10_000;
  while (isAlive(pid)) {
    assert.ok(Date.now() < limit, `process ${pid} outlived its worker`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function endCases(): Case[] {
  return [
    {
      title: "ends at once when the control stream ends",
      fresh: async (start) => {
        const worker = await start();
        worker.closeControl();
        await worker.end();
      },
    },
    {
      title: "takes everything it started with it when the host is gone",
      fixture: true,
      fresh: async (start) => {
        const worker = await start();
        const { pid } = await spawnChild(worker);
        assert.ok(isAlive(pid));
        worker.closeControl();
        await worker.end();
        await diesSoon(pid);
      },
    },
    {
      title: "ends while a call runs when the host is gone",
      fixture: true,
      fresh: async (start) => {
        const worker = await start();
        const job_id = newJob();
        void worker.execute("wait", {}, { job_id }).catch(() => undefined);
        await worker.frame((frame) => frame.type === "progress" && frame.job_id === job_id);
        worker.closeControl();
        await worker.end();
      },
    },
    {
      title: "keeps the control stream from the processes it starts",
      fixture: true,
      fresh: async (start) => {
        const { fds } = await spawnChild(await start());
        // The child's own listing of its descriptors takes one; no socket may be among them.
        assert.deepEqual(
          fds.filter((line) => line.includes("socket:")),
          [],
        );
      },
    },
    {
      title: "ends on SIGTERM with a bye frame, exit code 0 and no socket left",
      fresh: async (start) => {
        const worker = await start();
        worker.signal("SIGTERM");
        assert.deepEqual(await worker.end(), { code: 0, signal: null });
        assert.deepEqual(worker.frames.at(-1), { type: "bye", code: 0 });
        assert.ok(!existsSync(worker.listenAddress.slice("unix:".length)));
      },
    },
    {
      title: "cleans up once, whether asked by the host or by SIGTERM",
      fixture: true,
      fresh: async (start) => {
        const worker = await start();
        assert.equal(memberOf(await worker.post("/cleanup"), "status"), "cleaned");
        worker.signal("SIGTERM");
        await worker.end();
        assert.equal(readFileSync(join(worker.dataFolder, "cleaned"), "utf8"), "cleaned\n");
      },
    },
    {
      title: "lets a call that SIGTERM cancels say its last words before it cleans up",
      fixture: true,
      fresh: async (start) => {
        const worker = await start();
        const job_id = newJob();
        const answer = worker.execute("wait", { after: 0.3 }, { job_id });
        await worker.frame((frame) => frame.type === "progress" && frame.job_id === job_id);
        worker.signal("SIGTERM");
        failureOf(await answer, "CAPABILITY_CANCELLED");
        assert.equal((await worker.end()).code, 0);
        const said = worker.frames.map((frame) =>
          "message" in frame ? frame.message : frame.type,
        );
        assert.ok(said.includes("wait over"), said.join());
        assert.ok(said.indexOf("wait over") < said.indexOf("bye"));
        assert.equal(readFileSync(join(worker.dataFolder, "cleaned"), "utf8"), "cleaned\n");
      },
    },
    {
      title: "cleans up on SIGTERM, cancelling what runs",
      fixture: true,
      fresh: async (start) => {
        const worker = await start();
        const job_id = newJob();
        void worker.execute("wait", {}, { job_id }).catch(() => undefined);
        await worker.frame((frame) => frame.type === "progress" && frame.job_id === job_id);
        worker.signal("SIGTERM");
        assert.equal((await worker.end()).code, 0);
        assert.equal(readFileSync(join(worker.dataFolder, "cleaned"), "utf8"), "cleaned\n");
      },
    },
  ];
}

export const startAndEnd: readonly Case[] = [...startCases(), ...endCases()];
