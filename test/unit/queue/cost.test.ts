import { describe, expect, test } from "vitest";
import { composition, item, ref } from "../../../src/composition/index.ts";
import type { StoreWrite } from "../../../src/store/index.ts";
import { openQueue, type QueueHost } from "../../support/queue-host.ts";
import { wrapStore } from "../../support/wrap-store.ts";

interface Counted extends AsyncDisposable {
  readonly host: QueueHost;
  readonly units: (readonly StoreWrite[])[];
}

async function counted(): Promise<Counted> {
  const units: (readonly StoreWrite[])[] = [];
  const host = await openQueue({
    scheduler: { maxLanes: 4, admission: "permissive" },
    wrap: (store) =>
      wrapStore(store, {
        stage: async (unit) => {
          units.push(unit);
          return await store.stage(unit);
        },
      }),
  });
  host.executor.add("tool", { work: () => "ok", maxConcurrentRequests: 4 });
  // The first job brings its instance up, which is written too.
  await (await host.queue.submit("tool")).ended();
  units.length = 0;
  return { host, units, [Symbol.asyncDispose]: () => host[Symbol.asyncDispose]() };
}

describe("what is written, whatever the number of jobs", () => {
  test("an admitted job is two units of seven statements in all", async () => {
    await using one = await counted();
    await (await one.host.queue.submit("tool")).ended();
    expect(one.units.map((unit) => unit.map(({ op }) => op))).toEqual([
      ["job.insert", "journal.append", "journal.append", "journal.append"],
      ["profile.put", "journal.append", "job.update"],
    ]);
  });

  test("a chain is one unit for each node", async () => {
    await using one = await counted();
    const length = 40;
    const nodes = Object.fromEntries(
      Array.from({ length }, (_, n) => [
        `n${n}`,
        { capability: "tool", kwargs: n === 0 ? {} : { in: ref(`n${n - 1}`) } },
      ]),
    );
    await (await one.host.queue.submitComposition(composition(nodes))).result();
    expect(one.units).toHaveLength(length + 1);
  });

  test("a wide graph is written in bounded units, and all of it runs", async () => {
    await using one = await counted();
    const run = await one.host.queue.submitComposition(
      composition({
        a: { capability: "tool" },
        each: {
          capability: "tool",
          kwargs: { n: item() },
          forEach: Array.from({ length: 900 }, (_, n) => n),
        },
        ...Object.fromEntries(
          Array.from({ length: 600 }, (_, n) => [
            `w${n}`,
            { capability: "tool", kwargs: { in: ref("a") } },
          ]),
        ),
      }),
    );
    const view = await run.result();
    expect(view.results["each"]).toHaveLength(900);
    expect(Object.keys(view.results)).toHaveLength(602);
    expect(Math.max(...one.units.map((unit) => unit.length))).toBeLessThan(256 * 8);
  });

  test("a job behind others of its class writes nothing until it is their head", async () => {
    await using one = await counted();
    const gate = Promise.withResolvers<void>();
    one.host.executor.add("tool", { work: () => gate.promise, maxConcurrentRequests: 4 });
    const jobs = [];
    for (let n = 0; n < 200; n += 1) jobs.push(await one.host.queue.submit("tool"));
    const rows = one.units.slice(6).map((unit) => unit.length);
    expect(new Set(rows)).toEqual(new Set([2]));
    gate.resolve();
    await Promise.all(jobs.map((job) => job.ended()));
  });
});
