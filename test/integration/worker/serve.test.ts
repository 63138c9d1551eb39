import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, statSync } from "node:fs";
import { createInterface } from "node:readline";
import { describe, expect, it } from "vitest";
import { codeSectionSchema, healthSchema } from "../../../src/protocol/index.ts";
import { fixturePath, gone, TestHost } from "./start-worker.ts";

const action = (name: string, envelope: object = {}) => ({
  body: { kwargs: { action: name }, envelope },
});

describe("a worker that starts", () => {
  it("says that it is ready and answers on a socket only its user can open", async () => {
    await using host = new TestHost("echo");
    const ready = await host.frame("ready");
    expect(ready).toMatchObject({ protocol: 1, name: "echo", version: "1.0.0" });
    expect(ready.pid).toBe(host.child.pid);
    expect(statSync(ready.address.slice("unix:".length)).mode & 0o777).toBe(0o600);
    const health = await host.call("/health", { method: "GET" });
    expect(healthSchema.parse(health.body)).toMatchObject({ status: "running", name: "echo" });
    await host.start();
    const answer = await host.call("/execute", { body: { kwargs: { text: "hi" } } });
    expect(answer).toMatchObject({ status: 200, body: { text: "hi" } });
  });

  it("refuses a call without the token, and tells the host", async () => {
    await using host = new TestHost("echo");
    for (const authorization of ["", "Bearer", `Bearer ${"u".repeat(64)}`, "Basic eDp5"]) {
      expect(
        (await host.call("/health", { method: "GET", headers: { authorization } })).status,
      ).toBe(401);
    }
    expect((await host.frame("warning")).message).toMatch(/token/u);
  });

  it("listens on TCP where told to, only for its own Host and no Origin", async () => {
    await using host = new TestHost("echo", { env: { CJM_LISTEN: "tcp:127.0.0.1:0" } });
    const { address } = await host.frame("ready");
    const port = /^tcp:127\.0\.0\.1:(\d+)$/u.exec(address)?.[1];
    const health = async (headers: Record<string, string>) =>
      (await host.call("/health", { method: "GET", headers })).status;
    expect(await health({})).toBe(200);
    expect(await health({ host: `localhost:${port}` })).toBe(200);
    expect(await health({ host: `evil.example:${port}` })).toBe(403);
    expect(await health({ origin: "http://evil.example" })).toBe(403);
    expect((await host.frame("warning", ({ message }) => /Origin/u.test(message))).type).toBe(
      "warning",
    );
  });

  it("keeps the control stream from the processes of its author", async () => {
    await using host = await new TestHost("probe").start();
    const { body } = await host.call("/execute", action("descriptors"));
    const { control, child } = body as { control: string; child: string };
    expect(control).toMatch(/^socket:/u);
    expect(child).not.toContain(control);
  });

  it("ends where the hello is wrong, and says why", async () => {
    await using host = new TestHost("echo", { hello: false });
    host.say({ type: "hello", protocol: 2, token: "x".repeat(64) });
    expect((await host.exited).code).toBe(1);
    expect(host.stderr.join("")).toMatch(/protocol 1/u);
  });

  it("ends where no host started it, and says so", () => {
    const start = (): string =>
      execFileSync(process.execPath, ["-C", "@cjm/source", fixturePath("echo")], {
        stdio: ["ignore", "ignore", "pipe"],
        encoding: "utf8",
      });
    expect(start).toThrow(/CJM_CONTROL_FD/u);
  });

  it("prints what it is where it is asked for that only", () => {
    const output = execFileSync(process.execPath, ["-C", "@cjm/source", fixturePath("echo")], {
      env: { ...process.env, CJM_INTROSPECT: "1" },
      encoding: "utf8",
    });
    expect(codeSectionSchema.parse(JSON.parse(output))).toMatchObject({
      name: "echo",
      actions: { say: { default: true } },
    });
  });

  it("binds the task adapters that load, and logs those that do not", async () => {
    const adapters = fixturePath("greeting-adapter");
    const specs = [`${adapters}:greeting`, `${adapters}:picky`, "nowhere:x"].join(",");
    await using host = await new TestHost("echo", { env: { CJM_ADAPTERS: specs } }).start();
    const task = (name: string) =>
      host.call("/task", { body: { task: name, method: "greet", kwargs: { who: "you" } } });
    expect((await task("greeting")).body).toEqual({ text: "hello you" });
    expect((await task("picky")).status).toBe(404);
    expect(await host.frame("log", ({ exc }) => /echo lacks fly/u.test(exc ?? ""))).toMatchObject({
      level: "error",
    });
    expect(await host.frame("log", ({ message }) => /nowhere:x/u.test(message))).toMatchObject({
      level: "error",
    });
    expect(await host.frame("account")).toMatchObject({ payload: { task: "greeting", ok: true } });
  });
});

describe("a worker at work", () => {
  it("cancels the call whose connection closes, and only that", async () => {
    await using host = await new TestHost("probe").start();
    const leave = new AbortController();
    const left = host.call("/execute", { ...action("wait", { job_id: "a" }), leave: leave.signal });
    const stays = host.call("/execute", action("wait", { job_id: "b" }));
    for (const job of ["a", "b"]) await host.frame("progress", (frame) => frame.job_id === job);
    leave.abort();
    await expect(left).rejects.toThrow(/abort/u);
    await host.frame("progress", (frame) => frame.job_id === "a" && frame.message === "aborted");
    expect((await host.call("/cancel")).body).toMatchObject({ calls: 1 });
    expect((await stays).status).toBe(409);
  });

  it("cancels a stream that is left, and waits with it for a slow reader", async () => {
    await using host = await new TestHost("slow-stream").start();
    const body = { kwargs: { chunks: 1_000_000, every_ms: 0 }, envelope: { job_id: "s" } };
    const stream = await host.open("/execute_stream", { body });
    const [first] = (await once(createInterface({ input: stream }), "line")) as [string];
    expect(JSON.parse(first)).toEqual({ n: 0 });
    stream.destroy();
    for (;;) {
      const { body: reply } = await host.call("/cancel", { body: { job_id: "s" } });
      if ((reply as { calls: number }).calls === 0) break;
    }
  });

  it("refuses a body while it arrives, and serves the next one", async () => {
    await using host = await new TestHost("echo").start();
    const deep = await host.call("/execute", { raw: "[".repeat(100_000) });
    expect(deep).toMatchObject({
      status: 413,
      body: { _job_error: { code: "REQUEST_TOO_LARGE" } },
    });
    const wide = await host.call("/execute", { raw: `[${"1,".repeat(300_000)}1]` });
    expect(wide.status).toBe(413);
    expect((await host.call("/execute", { body: { kwargs: { text: "x" } } })).status).toBe(200);
  });

  it("counts the log records that a host which does not read has missed", async () => {
    await using host = await new TestHost("probe").start();
    host.control.pause();
    const answer = await host.call("/execute", action("shout"));
    expect(answer.body).toBe(40_000);
    host.control.resume();
    const { n } = await host.frame("dropped");
    const received = host.frames.filter(({ type }) => type === "log").length;
    expect(n + received).toBe(40_000);
    expect(received).toBeLessThan(4000);
  });
});

describe("a worker that ends", () => {
  it("cleans up on SIGTERM, says goodbye and leaves no socket", async () => {
    await using host = await new TestHost("probe").start();
    const { address } = await host.frame("ready");
    host.child.kill("SIGTERM");
    expect(await host.frame("bye")).toEqual({ type: "bye", code: 0 });
    expect(await host.exited).toEqual({ code: 0, signal: null });
    expect(host.stderr.join("")).toBe("cleaned up\n");
    expect(existsSync(address.slice("unix:".length))).toBe(false);
  });

  it.each(["throw_later", "reject_later"])("says what killed it: %s", async (name) => {
    await using host = await new TestHost("probe").start();
    await host.call("/execute", action(name));
    expect(await host.frame("log")).toMatchObject({
      level: "critical",
      message: "uncaught failure",
    });
    expect(await host.frame("bye")).toMatchObject({ code: 1 });
    expect((await host.exited).code).toBe(1);
  });

  it("goes with its host, and everything it started goes too", async () => {
    const env = { CJM_WORKER_SESSION_ID: `test-${process.pid}-${Date.now()}` };
    await using probe = await new TestHost("probe", { env }).start();
    const { body: child } = await probe.call("/execute", action("spawn"));
    probe.control.destroy();
    expect((await probe.exited).signal).toBe("SIGKILL");
    await gone(Number(child));
  });

  it("takes along what left its process tree", async () => {
    const env = { CJM_WORKER_SESSION_ID: `test-${process.pid}-${Date.now()}` };
    await using host = await new TestHost("leaks-grandchild", { env }).start();
    const { body } = await host.call("/execute");
    host.control.destroy();
    await host.exited;
    await gone((body as { pid: number }).pid);
  });

  it("goes with a host that dies before it said hello", async () => {
    await using host = new TestHost("echo", { hello: false });
    host.control.destroy();
    expect((await host.exited).signal).toBe("SIGKILL");
  });
});
