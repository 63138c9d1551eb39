import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseCompositionFile } from "../../../src/composition/index.ts";
import { toJobError } from "../../../src/errors/index.ts";
import { processTree, runFolderPath } from "../../../src/process/index.ts";
import { SecretStore } from "../../../src/store/index.ts";
import { runCli } from "../../support/cli.ts";
import { failure, Project, run } from "../capability/support.ts";

const CANARY = "canary/0f9d+4be1=a77c&c2e6";

let project: Project;
beforeAll(async () => {
  project = await Project.create();
  await project.writeConfig("queue:\n  max_retries: 0\n");
  await project.add("life");
  await project.add("echo");
  await new SecretStore(join(project.folder, "data")).set(
    { capability: "life", key: "LIFE_KEY" },
    CANARY,
  );
});
afterAll(() => project[Symbol.asyncDispose]());

/** The secret as it is, as JSON, in a URI, and in Base64 alone or behind a name. */
const FORMS = [
  CANARY,
  JSON.stringify(CANARY).slice(1, -1),
  encodeURIComponent(CANARY),
  ...["", "u:", "us:"].map((before) =>
    Buffer.from(before + CANARY)
      .toString("base64")
      .slice(Math.ceil((before.length * 4) / 3) + 1, -6),
  ),
];

const shows = (bytes: string): boolean => FORMS.some((form) => bytes.includes(form));

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((one) => one.isFile()).map((one) => join(one.parentPath, one.name));
}

/** Command lines and environments, of the processes outside `family`, that show the secret. */
async function processesThatShow(family: readonly number[]): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/u.test(name))) {
    const files = family.includes(Number(pid)) ? ["cmdline"] : ["cmdline", "environ"];
    for (const file of files) {
      const path = join("/proc", pid, file);
      if (shows(await readFile(path, "latin1").catch(() => ""))) found.push(path);
    }
  }
  return found;
}

async function cjmCtl(...args: readonly string[]): Promise<string> {
  const place = { dataDir: join(project.folder, "data"), cwd: project.folder };
  const { stdout, stderr } = await runCli(args, place);
  return `${stdout}${stderr}`;
}

/** The HTML report of a composition, which is left where the search for the secret comes. */
async function report(id: string): Promise<{ page: string }> {
  const out = join(project.folder, "report.html");
  const printed = await cjmCtl("report", id, "--out", out);
  const page = await readFile(out, "utf8");
  expect(page).toContain("<html");
  return { page: printed + page };
}

const LIMIT = { timeout: 60_000 };

test(
  "after a whole scenario a secret is in its file and in its own worker only",
  LIMIT,
  async () => {
    const told: string[] = [];
    let following: Promise<void> | undefined;
    {
      await using pipeline = await project.open({ capabilities: ["life", "echo"] });
      const { queue } = pipeline;
      following = (async () => {
        for await (const event of queue.allEvents()) told.push(JSON.stringify(event));
      })();
      await run(pipeline, "life", "tell");
      await run(pipeline, "echo", "say", { text: "hello" });
      const failed = await queue.submit("life", {}, { action: "fail_with_secret" });
      const error = await failure(failed.result());
      told.push(JSON.stringify(toJobError(error)), String(error), (error as Error).stack ?? "");
      told.push(JSON.stringify(await queue.getJob(failed.id)));
      const composition = parseCompositionFile({
        nodes: {
          first: { capability: "life", action: "tell" },
          second: { capability: "life", action: "fail_with_secret" },
        },
      });
      const composed = await queue.submitComposition(composition);
      told.push(String(await failure(composed.result())), (await report(composed.id)).page);
      const life = processTree(pipeline.manager.instance("life").pid ?? 0);
      expect(await processesThatShow(life)).toEqual([]);
      told.push(await cjmCtl("status", "--json"));
      await pipeline.diagnostics.flush();
      told.push(JSON.stringify(await pipeline.diagnostics.queryRecords()));
      told.push(JSON.stringify(await pipeline.diagnostics.queryChunks()));
      told.push(JSON.stringify(await pipeline.journal.query()));
      const dead = await queue.submit("life", {}, { action: "die_with_secret" });
      const death = await failure(dead.result());
      told.push(JSON.stringify(toJobError(death)), inspect(death, { depth: 9 }));
      told.push(JSON.stringify(await queue.getJobDiagnostics(dead.id)));
      expect(await readdir(runFolderPath(pipeline.config.dataDir))).not.toEqual([]);
    }
    await following;
    const [jobId = ""] = /[0-9a-f]{8}-[0-9a-f-]{27}/u.exec(told.join("\n")) ?? [];
    const commands = ["logs --json", "logs --chunks", "logs --journal --json"].map((one) =>
      cjmCtl(...one.split(" "), "--limit", "0"),
    );
    told.push(...(await Promise.all(commands)));
    const more = [["explain", jobId], ["trace", jobId], ["status"], ["list-secrets"], ["list"]].map(
      (args) => cjmCtl(...args),
    );
    told.push(...(await Promise.all(more)));
    expect(told.filter(shows)).toEqual([]);
    expect(told.join("").includes("[redacted]")).toBe(true);

    const withSecret: string[] = [];
    for (const path of await filesBelow(project.folder)) {
      if (shows(await readFile(path, "latin1"))) withSecret.push(path);
    }
    expect(withSecret).toEqual([join(project.folder, "data/secrets/secrets.json")]);
  },
);
