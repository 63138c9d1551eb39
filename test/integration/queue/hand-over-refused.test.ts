import { describe, expect, test } from "vitest";
import { evictions, machine } from "./gpu-machine.ts";

describe("one GPU whose holder does not give it back as asked", () => {
  test.each([
    ["refuse", ["eviction_requested writer", "eviction_refuted writer"]],
    ["die", ["eviction_requested writer", "eviction_refuted writer"]],
    ["lie", ["eviction_requested writer", "eviction_confirmed writer", "eviction_refuted writer"]],
    // It has no way to release anything: it is ended, and that is its release.
    ["unsupported", ["eviction_requested writer", "eviction_confirmed writer"]],
  ])("goes to the trainer from a writer that answers with: %s", async (release, story) => {
    await using host = await machine(release);
    const { queue } = host.pipeline;
    const first = await (await queue.submit("writer")).result();
    expect(await (await queue.submit("trainer")).ended()).toMatchObject({ status: "completed" });
    expect(await evictions(host.pipeline)).toEqual(story);
    const again = await (await queue.submit("writer")).result();
    expect(again).not.toEqual(first);
  });
});
