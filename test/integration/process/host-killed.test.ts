import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { isAlive, probeCage, type ProcessIdentity } from "../../../src/process/index.ts";
import type { Cage } from "../../../src/protocol/index.ts";
import { fixtureCommand, gone, population, ROOT, Workbench } from "./support.ts";

const { cage: strongest } = await probeCage();

/** Starts a host with one worker, kills the host with SIGKILL, answers with who there was. */
async function killHost(
  bench: Workbench,
  worker: { readonly capability: string; readonly fixture: string; readonly cage: Cage },
): Promise<readonly ProcessIdentity[]> {
  const spec = bench.spec(worker.capability, fixtureCommand(worker.fixture), { cage: worker.cage });
  const script = join(ROOT, "test/fixtures/hosts/one-worker.ts");
  const host = spawn(process.execPath, ["-C", "@cjm/source", script, JSON.stringify(spec)], {
    stdio: ["ignore", "pipe", "inherit"],
    cwd: ROOT,
  });
  const [line] = (await once(createInterface({ input: host.stdout }), "line")) as [string];
  const everyone = population(Number(line));
  host.kill("SIGKILL");
  await once(host, "exit");
  return everyone;
}

test.skipIf(strongest !== "pidns")(
  "a host's SIGKILL takes a caged worker that ignores signals, and its child, by the kernel",
  async () => {
    await using bench = await Workbench.create();
    const everyone = await killHost(bench, {
      capability: "stubborn",
      fixture: "ignore-sigterm",
      cage: "pidns",
    });
    expect(everyone.length).toBeGreaterThan(3);
    await gone(everyone);
    expect(everyone.some(isAlive)).toBe(false);
  },
);

test("a host's SIGKILL ends an uncaged worker, by the end of its control stream", async () => {
  await using bench = await Workbench.create();
  const everyone = await killHost(bench, {
    capability: "stubborn",
    fixture: "ignore-sigterm",
    cage: "group",
  });
  await gone(everyone);
  expect(everyone.some(isAlive)).toBe(false);
});
