import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  cgroupPlace,
  endSessionProcesses,
  isAlive,
  probeCage,
  type WorkerConnection,
} from "../../../src/process/index.ts";
import type { Cage } from "../../../src/protocol/index.ts";
import { call, containing, gone, population, Workbench } from "./support.ts";

const { cage: strongest } = await probeCage();
const cages: readonly Cage[] = [
  ...(strongest === "pidns" ? (["pidns"] as const) : []),
  ...("place" in (await cgroupPlace()) ? (["cgroup"] as const) : []),
  "group",
];

async function run(connection: WorkerConnection, action: string): Promise<unknown> {
  return (await connection.post("/execute", call(action), z.unknown())).value;
}

describe.each(cages)("a worker in the cage %s", (cage) => {
  test("leaves nobody behind when it ignores SIGTERM, nor does its child", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("stubborn", "ignore-sigterm", cage);
    const everyone = population(connection.worker.pid);
    expect(everyone.length).toBeGreaterThanOrEqual(2);
    const exit = await connection.terminate(50);
    expect(exit).toMatchObject({ isEndedByHost: true, bye: null });
    await gone(everyone);
    expect(everyone.filter(isAlive)).toEqual([]);
  });

  test("takes with it a grandchild in a session of its own", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("leaky", "leaks-grandchild", cage);
    await run(connection, "leak");
    // Adopted by the cage's first process, or by the machine's: the tree shows it only in a cage.
    const everyone = population(connection.worker.pid);
    await connection.kill();
    await gone(everyone);
    const left = await endSessionProcesses((id) => id === connection.worker.sessionId);
    expect(left).toEqual([]);
  });

  test("says goodbye and ends with code 0 on SIGTERM", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("echo", "echo", cage);
    const exit = await connection.terminate(20_000);
    expect(exit).toEqual({ code: 0, signal: null, bye: 0, isEndedByHost: true, oomKills: 0 });
  });

  test("that is killed in a call fails that call as out of memory, a resource error", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("victim", "killed-while-running", cage);
    await expect(run(connection, "die")).rejects.toMatchObject({
      code: "WORKER_OOM",
      category: "resource",
      message: containing('Worker of "victim" was killed'),
    });
    expect(await connection.worker.exited).toEqual({
      code: null,
      signal: "SIGKILL",
      bye: null,
      isEndedByHost: false,
      oomKills: 0,
    });
  });

  test("that ends while it streams fails the stream with a transient error and its exit code", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("brief", "dies-while-streaming", cage);
    const chunks: unknown[] = [];
    const reading = (async () => {
      for await (const chunk of connection.stream("/execute_stream", call("count"))) {
        chunks.push(chunk);
      }
    })();
    await expect(reading).rejects.toMatchObject({
      code: "WORKER_EXITED",
      category: "transient",
      message: containing("with code 7"),
    });
    // Whether its only chunk got out before its end is the kernel's business.
    expect(chunks.every((chunk) => chunk === 1)).toBe(true);
  });

  test("that the host kills in a call fails the call, but not as the worker's own fault", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("probe", "probe", cage);
    const pending = run(connection, "wait");
    pending.catch(() => undefined);
    await bench.recorder.until(() => bench.recorder.frames.some(({ type }) => type === "progress"));
    await connection.kill();
    await expect(pending).rejects.toMatchObject({
      code: "WORKER_EXITED",
      message: containing("was ended by the host"),
      details: { isEndedByHost: true },
    });
  });
});

describe.each(cages.filter((cage) => cage !== "pidns"))("the kernel does not empty %s", (cage) => {
  test("so whoever a dead worker left is ended before its end is told", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("stubborn", "ignore-sigterm", cage);
    const everyone = population(connection.worker.pid);
    expect(everyone.length).toBeGreaterThanOrEqual(2);
    process.kill(connection.worker.pid, "SIGKILL");
    expect(await connection.worker.exited).toMatchObject({ signal: "SIGKILL" });
    expect(everyone.filter(isAlive)).toEqual([]);
  });
});
