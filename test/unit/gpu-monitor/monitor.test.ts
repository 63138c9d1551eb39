import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { sampleSchema } from "../../../workers/gpu-monitor/model.ts";
import { Monitor } from "../../../workers/gpu-monitor/monitor.ts";
import { GIB, gpu, ManualClock, QueuedSource } from "./support.ts";

describe("Monitor", () => {
  test("samples on a fixed grid and puts events after the sample that shows them", async () => {
    const clock = new ManualClock();
    const source = new QueuedSource(
      [gpu()],
      [gpu({ memory_used_bytes: GIB, memory_free_bytes: 23 * GIB })],
    );
    await using monitor = new Monitor(source, process.pid, clock);
    const stop = new AbortController();
    const seen: string[] = [];
    for await (const chunk of monitor.watch(10, stop.signal)) {
      seen.push(`${chunk.type === "event" ? chunk.event : "sample"} ${chunk.monotonic_ms}`);
      if (seen.length === 4) stop.abort();
    }
    expect(seen).toEqual(["sample 0", "sample 100", "vram_recovered 100", "sample 200"]);
  });

  test("reads once for callers that come together", async () => {
    const source = new QueuedSource([gpu()]);
    await using monitor = new Monitor(source, process.pid, new ManualClock());
    await Promise.all([monitor.sample(), monitor.sample(), monitor.sample()]);
    await monitor.sample(50);
    expect(source.reads).toBe(1);
  });

  test("marks descendants of the host as own, others as foreign, the invisible as unknown", async () => {
    const held = (pid: number): Parameters<typeof gpu>[0] => ({
      processes: [{ pid, memory_bytes: GIB, kind: "compute", name: null, own: null }],
    });
    const host = spawn("sleep", ["600"], { stdio: "ignore" });
    const hostPid = host.pid ?? 0;
    const owners = [hostPid, process.pid, 2 ** 22 + 1].map(async (pid) => {
      await using monitor = new Monitor(new QueuedSource([gpu(held(pid))]), hostPid);
      const { gpus } = sampleSchema.parse(await monitor.sample());
      return gpus[0]?.processes?.[0]?.own;
    });
    expect(await Promise.all(owners)).toEqual([true, false, null]);
    const exited = once(host, "exit");
    host.kill("SIGKILL");
    await exited;
  });

  test("ends its streams when it is disposed, after the reading that is under way", async () => {
    const source = new QueuedSource([gpu()]);
    const monitor = new Monitor(source, process.pid, new ManualClock());
    const chunks = monitor.watch(10, new AbortController().signal);
    expect(await chunks.next()).toMatchObject({ done: false });
    const reading = monitor.sample();
    await monitor[Symbol.asyncDispose]();
    await reading;
    expect(await chunks.next()).toMatchObject({ done: true });
    expect(source.isClosed).toBe(true);
  });

  test("passes a failure of the whole source on, and closes it", async () => {
    const source = new QueuedSource();
    {
      await using monitor = new Monitor(source, process.pid);
      await expect(monitor.sample()).rejects.toThrow("the driver is gone");
    }
    expect(source.isClosed).toBe(true);
  });
});
