import { describe, expect, test } from "vitest";
import type { StagedResult, StorePort } from "../../../src/store/index.ts";
import { openQueue, settled, told } from "../../support/queue-host.ts";
import { wrapStore } from "../../support/wrap-store.ts";

/** A store whose disk can fail: what is staged meanwhile is held, as the real one does. */
function failingDisk(store: StorePort): { port: StorePort; fail(): void; repair(): void } {
  let isUp = true;
  const held: (() => void)[] = [];
  const listeners = new Set<(available: boolean) => void>();
  const change = (available: boolean): void => {
    isUp = available;
    for (const listener of listeners) listener(available);
  };
  const port = wrapStore(store, {
    get available() {
      return isUp;
    },
    onAvailability: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    stage: async (unit): Promise<StagedResult> => {
      if (!isUp) {
        await new Promise<void>((resolve) => {
          held.push(resolve);
        });
      }
      return await store.stage(unit);
    },
  });
  return {
    port,
    fail: () => {
      change(false);
    },
    repair: () => {
      change(true);
      for (const release of held.splice(0)) release();
    },
  };
}

describe("while the journal cannot be written", () => {
  test("new work is refused, what runs ends unpublished, and all is told when it can", async () => {
    let disk: ReturnType<typeof failingDisk> | undefined;
    await using host = await openQueue({
      wrap: (store) => {
        disk = failingDisk(store);
        return disk.port;
      },
    });
    const finish = Promise.withResolvers<string>();
    host.executor.add("tool", () => finish.promise);
    const job = await host.queue.submit("tool");
    await host.executor.sent(1);
    disk?.fail();
    await expect(host.queue.submit("tool")).rejects.toMatchObject({ code: "JOURNAL_UNAVAILABLE" });
    const composition = host.queue.submitComposition({
      nodes: [],
      failFast: true,
      priority: 0,
      inputs: {},
      instances: {},
    });
    await expect(composition).rejects.toMatchObject({ code: "JOURNAL_UNAVAILABLE" });
    finish.resolve("held");
    await settled();
    expect(host.queue.peek(job.id)?.status).toBe("running");
    disk?.repair();
    expect(await job.result()).toBe("held");
    expect(await (await host.queue.submit("tool")).result()).toBe("held");
    expect(told(await host.journal({ jobId: job.id })).at(-1)).toBe(
      "state_transition running→completed",
    );
  });
});
