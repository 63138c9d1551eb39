import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { identify, isAlive, probeCage, type ProcessIdentity } from "../../../src/process/index.ts";
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

test.skipIf(strongest !== "pidns")(
  "a command whose host is killed before the cage has closed is not run",
  async () => {
    await using bench = await Workbench.create();
    const gate = join(bench.folder, "gate");
    const proof = join(bench.folder, "proof");
    execFileSync("mkfifo", [gate]);
    // Holds the first process of the cage where it has not asked for its parent's death yet.
    const held = `#!/bin/sh\nread -r go < "${gate}"\nPATH="\${PATH#*:}" exec setpriv "$@"\n`;
    await writeFile(join(bench.folder, "setpriv"), held, { mode: 0o755 });
    const script = join(ROOT, "test/fixtures/hosts/one-command.ts");
    const host = spawn(process.execPath, ["-C", "@cjm/source", script, "touch", proof], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, PATH: `${bench.folder}:${process.env["PATH"] ?? ""}` },
    });
    const [line] = (await once(createInterface({ input: host.stdout }), "line")) as [string];
    const first = identify(Number(line));
    host.kill("SIGKILL");
    await once(host, "exit");
    await using go = await open(gate, "w");
    await go.write("go\n");
    expect(first).toBeDefined();
    await gone(first === undefined ? [] : [first]);
    expect(existsSync(proof)).toBe(false);
  },
);
