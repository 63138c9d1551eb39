import { expect, test } from "vitest";
import { forceAll } from "../../../src/cli/force.ts";
import { parseCompositionFile } from "../../../src/composition/index.ts";
import { openQueue } from "../../support/queue-host.ts";

const DOCUMENT = {
  nodes: {
    one: { capability: "tool", cache: true },
    two: { capability: "tool", cache: true, kwargs: { x: { $ref: "one" } }, control: { depth: 2 } },
  },
};

test("--force runs every node anew and tells its worker so", async () => {
  await using host = await openQueue();
  host.executor.add("tool", { work: () => "done", codeHash: "sha256:code", isRepeatable: true });
  const run = async (document: unknown): Promise<number> => {
    const before = host.executor.calls.length;
    const handle = await host.queue.submitComposition(parseCompositionFile(document));
    await handle.result();
    return host.executor.calls.length - before;
  };
  expect(await run(DOCUMENT)).toBe(2);
  expect(await run(DOCUMENT)).toBe(0);
  expect(await run(forceAll(DOCUMENT))).toBe(2);
  const controls = host.executor.calls.slice(-2).map(({ identity }) => identity.control);
  expect(controls).toEqual([{ force: true }, { depth: 2, force: true }]);
});

test("--force leaves what is no composition to the parser", () => {
  for (const wrong of [7, { nodes: [] }, { nodes: { a: 1 } }, { nodes: { a: { control: 1 } } }]) {
    expect(forceAll(wrong)).toEqual(wrong);
  }
});
