import { expect, test } from "vitest";
import { Jail } from "../../../workers/sandbox/jail.ts";
import { openSite } from "../../../workers/sandbox/run-site.ts";
import { leftovers } from "./leaks.ts";
import { Bench } from "./support.ts";

test("a jail whose first process cannot be started leaves nothing", async () => {
  await using bench = await Bench.open();
  const { workbench } = bench;
  const { signal } = new AbortController();
  const place = { language: "command", isolation: "bubblewrap", input_dirs: {}, env: {} } as const;
  using site = await openSite(workbench, { ...place, limits: {} }, signal);
  // As `spawn` does where no descriptor or process is to be had.
  const backend = {
    ...site.engine.backend,
    launch: () => {
      throw new Error("spawn EMFILE");
    },
  };
  const before = await leftovers(workbench);
  for (let tries = 0; tries < 3; tries += 1) {
    const started = Jail.start({ ...site.engine, backend }, site.policy, signal);
    await expect(started).rejects.toThrow("spawn EMFILE");
  }
  await expect.poll(() => leftovers(workbench)).toEqual(before);
});
