import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { expect, test } from "vitest";
import { loadManifests, workerCommand } from "../../src/config/index.ts";
import { runCli, startCli, temporaryFolder } from "../support/cli.ts";
import { CHAOS_SEED, report, timeOf } from "./support/long-form.ts";
import { randomFrom } from "./support/random.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/projects/greeters", import.meta.url));
const KILLS = Number(process.env["CJM_CHAOS_KILLS"] ?? 50);
const NAMES = ["js-greeter", "py-script"] as const;
const SOURCES = { "js-greeter": "js-greeter/main.js", "py-script": "py-script/main.py" };

test(`after each of up to ${KILLS} kills at random moments every capability still works, old or new`, async () => {
  const random = randomFrom(CHAOS_SEED);
  const endsAt = performance.now() + timeOf("install-all");
  await using folder = await temporaryFolder();
  const project = folder.path;
  const place = { dataDir: join(project, "data"), cwd: project };
  await cp(FIXTURES, project, { recursive: true });
  const entries = NAMES.map((name) => ({ name, path: name }));
  const capabilities = entries.map((entry) =>
    entry.name === "py-script" ? { ...entry, entry: "main.py" } : entry,
  );
  await writeFile(join(project, "capabilities.yaml"), JSON.stringify({ capabilities }));

  const startedAt = performance.now();
  expect((await runCli(["install-all"], place)).exitCode).toBe(0);
  const fullMs = performance.now() - startedAt;
  /** What may serve: the last finished installation, or any that a kill came too late for. */
  let allowed = ["1.0.0"];
  let survived = 0;
  let killed = 0;
  for (let kill = 1; kill <= KILLS && performance.now() < endsAt; kill += 1) {
    killed = kill;
    const next = `1.${kill}.0`;
    for (const name of NAMES) await setVersion(join(project, SOURCES[name]), next);
    const child = startCli(["install-all"], place);
    // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
    await delay(random() * fullMs * 1.1);
    child.kill("SIGKILL");
    if ((await child).exitCode === 0) survived += 1;
    for (const name of NAMES) {
      expect([...allowed, next], `${name} after kill ${kill}`).toContain(await served(name, place));
    }
    // Every third time nothing is finished in between: kills may follow each other.
    allowed.push(next);
    if (kill % 3 !== 0) continue;
    const finished = await runCli(["install-all", "--json"], place);
    expect(finished.exitCode, finished.stdout + finished.stderr).toBe(0);
    for (const name of NAMES) expect(await served(name, place)).toBe(next);
    allowed = [next];
  }
  report("install-all kills", { killed, cameAfterTheEnd: survived });
});

async function setVersion(path: string, version: string): Promise<void> {
  const text = await readFile(path, "utf8");
  await writeFile(path, text.replace(/version(?<sign>: | = )".*"/u, `version$<sign>"${version}"`));
}

/** The version that the installed worker itself says it is, which must be its manifest's. */
async function served(name: string, { dataDir }: { readonly dataDir: string }): Promise<string> {
  const { capabilities, problems } = await loadManifests([join(dataDir, "manifests")]);
  expect(problems).toEqual([]);
  const found = capabilities.get(name);
  const [file = "", ...args] = (found && workerCommand(found)) ?? [];
  const { stdout } = await execa(file, args, { env: { CJM_INTROSPECT: "1" } });
  const code = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as { version: string };
  expect(code.version).toBe(found?.manifest.code.version);
  return code.version;
}
