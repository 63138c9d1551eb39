import { describe, expect, test } from "vitest";
import { composition } from "../../../src/index.ts";
import { evictions, machine } from "./gpu-machine.ts";

const call = (capability: string, kwargs: Record<string, unknown> = {}) => ({ capability, kwargs });

describe("one GPU that two tools need in turn", () => {
  test("is handed to the trainer and back, the writer's process living on", async () => {
    await using host = await machine();
    const { queue } = host.pipeline;
    const first = await (await queue.submit("writer")).result();
    const trained = await (await queue.submit("trainer")).ended();
    expect(trained).toMatchObject({ status: "completed" });
    const second = await (await queue.submit("writer")).result();
    expect(second).toEqual(first);
    expect(await evictions(host.pipeline)).toEqual([
      "eviction_requested writer",
      "eviction_confirmed writer",
      "eviction_requested trainer",
      "eviction_confirmed trainer",
    ]);
    expect(queue.getProfiles("writer")[0]?.vramPeakMb.max).toBe(14 * 1024);
    expect(queue.getProfiles("trainer")[0]?.vramPeakMb.max).toBe(20 * 1024);
  });

  test.each(["error", "death"])("comes back when the trainer ends in %s", async (end) => {
    await using host = await machine();
    const { queue } = host.pipeline;
    const first = await (await queue.submit("writer")).result();
    const run = await queue.submitComposition(
      composition({ train: call("trainer", { end }) }, { failFast: false }),
    );
    expect((await run.ended()).nodes[0]).toMatchObject({ state: "failed" });
    expect(await (await queue.submit("writer")).result()).toEqual(first);
    expect((await evictions(host.pipeline)).slice(0, 2)).toEqual([
      "eviction_requested writer",
      "eviction_confirmed writer",
    ]);
  });
});
