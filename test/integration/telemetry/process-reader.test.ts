import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import pidusage from "pidusage";
import { describe, expect, test } from "vitest";
import { ProcReader, type ProcessReading } from "../../../src/telemetry/index.ts";
import { parseParents, PidusageReader } from "../../../src/telemetry/pidusage-reader.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/gpu");
const UNSHARE = ["--user", "--map-current-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
const canUnshare = spawnSync("unshare", [...UNSHARE, "true"]).status === 0;

/** A child that is killed, with all that it started, when the test leaves the scope. */
class Child implements AsyncDisposable {
  readonly process: ChildProcess;
  constructor(command: string, args: readonly string[]) {
    this.process = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"], detached: true });
  }
  get pid(): number {
    return this.process.pid ?? 0;
  }
  async firstLine(): Promise<string> {
    const [data] = (await once(this.process.stdout ?? this.process, "data")) as [Buffer];
    return data.toString().trim();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    const exited = once(this.process, "exit");
    process.kill(-this.pid, "SIGKILL");
    await exited;
  }
}

describe.runIf(process.platform === "linux")("ProcReader", () => {
  test("finds a child that another thread than the main one spawned", async () => {
    await using parent = new Child(process.execPath, [join(FIXTURES, "child-of-thread.ts")]);
    const childPid = Number(await parent.firstLine());
    const tree = new ProcReader().tree(parent.pid);
    expect(tree.map(({ pid }) => pid)).toEqual([parent.pid, childPid]);
    expect(tree[1]).toMatchObject({ parent: parent.pid });
  });

  test("agrees with pidusage on memory and CPU time of this process", async () => {
    const [own] = new ProcReader().tree(process.pid);
    const usage = await pidusage(process.pid);
    expect(Math.abs((own?.rssBytes ?? 0) - usage.memory)).toBeLessThan(usage.memory * 0.2);
    expect(Math.abs((own?.cpuMs ?? 0) - usage.ctime)).toBeLessThan(500);
  });

  test("has nothing to say of a process that is gone", async () => {
    const { pid } = spawnSync("true");
    expect(new ProcReader().tree(pid)).toEqual([]);
    expect(new ProcReader().parent(pid)).toBeUndefined();
    expect(await new ProcReader().pssBytes(pid)).toBeNull();
  });

  test("reads the share of pages that belongs to a process", async () => {
    const pssBytes = (await new ProcReader().pssBytes(process.pid)) ?? 0;
    expect(pssBytes).toBeGreaterThan(0);
    expect(pssBytes).toBeLessThanOrEqual(process.memoryUsage.rss() * 1.2);
  });

  test.runIf(canUnshare)("knows the numbers a process has inside a PID namespace", async () => {
    const script = "echo ready; exec sleep 600";
    await using caged = new Child("unshare", [...UNSHARE, "sh", "-c", script]);
    await caged.firstLine();
    const reader = new ProcReader();
    const [, inner] = reader.tree(caged.pid);
    expect(reader.namespacePids(inner?.pid ?? 0)).toEqual([inner?.pid, 1]);
    expect(reader.namespacePids(process.pid)).toEqual([process.pid]);
  });
});

describe("PidusageReader", () => {
  test("finds the tree and its use with ps and pidusage", async () => {
    await using parent = new Child("sh", ["-c", "sleep 600 & echo ready; wait"]);
    await parent.firstLine();
    const tree: readonly ProcessReading[] = await new PidusageReader().tree(parent.pid);
    expect(tree).toHaveLength(2);
    expect(tree.find(({ pid }) => pid !== parent.pid)).toMatchObject({ parent: parent.pid });
    expect(tree.every(({ rssBytes }) => rssBytes > 0)).toBe(true);
  });

  test("reads what ps prints on any system, and nothing else", () => {
    expect([...parseParents("    1     0\n  543     1\n\nps: warning\n")]).toEqual([
      [1, 0],
      [543, 1],
    ]);
  });
});
