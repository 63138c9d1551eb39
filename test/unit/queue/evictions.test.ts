import { describe, expect, test } from "vitest";
import { FakeExecutor, FakeProbe } from "../../support/fake-executor.ts";
import { openQueue, type QueueHost } from "../../support/queue-host.ts";

const GPU = "g";

/** A machine with one GPU of 24 GB, of which `held` says what each instance has. */
function shows(probe: FakeProbe, held: Readonly<Record<string, number>>): void {
  const used = Object.values(held).reduce((sum, mb) => sum + mb, 0);
  probe.set({
    gpus: [{ uuid: GPU, totalMb: 24_000, freeMb: 24_000 - used }],
    gpuModel: "G",
    instances: Object.entries(held).map(([instanceId, vramMb]) => ({
      instanceId,
      vramMb,
      ramMb: 50,
    })),
  });
}

/** A host whose writer is idle and holds 14 GB; a trainer needs 20. */
async function host(): Promise<QueueHost> {
  const executor = new FakeExecutor();
  const probe = new FakeProbe();
  const peak = (mb: number) => ({ peaks: { gpuMb: { [GPU]: mb } } });
  executor.add("writer", { work: () => "written", ...peak(14_000) });
  executor.add("trainer", { work: () => "trained", ...peak(20_000) });
  const opened = await openQueue({ executor, probe });
  shows(probe, {});
  await (await opened.queue.submit("writer")).result();
  shows(probe, { writer: 14_000 });
  return opened;
}

async function evictions(opened: QueueHost): Promise<string[]> {
  const types = (await opened.journal()).map(({ eventType }) => eventType);
  return types.filter((type) => type.startsWith("eviction_"));
}

describe("an idle resident that is in the way", () => {
  test("is asked to release; what waits is admitted when the memory is seen free", async () => {
    await using opened = await host();
    opened.executor.onRelease = () => {
      shows(opened.probe, { writer: 0 });
    };
    const job = await opened.queue.submit("trainer");
    // A sample that was taken after the reply is the evidence.
    const asked = opened.queue.allEvents(0);
    for await (const { type } of asked) if (type === "eviction_confirmed") break;
    shows(opened.probe, { writer: 0 });
    expect(await job.result()).toBe("trained");
    expect(opened.executor.released).toEqual([{ instanceId: "writer", level: "sleep" }]);
    expect(await evictions(opened)).toEqual(["eviction_requested", "eviction_confirmed"]);
  });

  test("is ended when it refuses, and the reason is journaled", async () => {
    await using opened = await host();
    opened.executor.onRelease = () => {
      throw new Error("it cannot be spared");
    };
    const job = await opened.queue.submit("trainer");
    for await (const { type, payload } of opened.queue.allEvents(0)) {
      if (type !== "eviction_refuted") continue;
      expect(payload).toMatchObject({ error: "it cannot be spared" });
      break;
    }
    shows(opened.probe, {});
    expect(await job.result()).toBe("trained");
    expect(opened.executor.ended).toMatchObject([
      { instanceId: "writer", reason: "did not release its memory when it was asked to" },
    ]);
    expect(await evictions(opened)).toEqual(["eviction_requested", "eviction_refuted"]);
  });
});

test("a job that can never fit fails at once, with the numbers", async () => {
  await using opened = await host();
  const job = await opened.queue.submit("trainer", {}, { vramLimitMb: 90_000 });
  expect(await job.ended()).toMatchObject({
    status: "failed",
    error: { code: "VRAM_NEVER_FITS", resource_shortfall: { needed: 90_000 } },
  });
});
