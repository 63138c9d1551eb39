import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { validateJsonSchema } from "../../../src/protocol/index.ts";
import { runCli, startCli, temporaryFolder } from "../../support/cli.ts";
import { runInTerminal } from "../../support/terminal.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const SCHEMAS = z
  .object({ $defs: z.record(z.string(), z.record(z.string(), z.unknown())) })
  .parse(JSON.parse(readFileSync(join(ROOT, "schemas/cli.schema.json"), "utf8"))).$defs;

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let dataDir = "";
let project = "";

/** A program that has said it runs, and ends when the test lets it. */
const composition = (code: string): string =>
  JSON.stringify({
    nodes: {
      wait: {
        capability: "sandbox",
        action: "run",
        kwargs: { language: "python", isolation: "none", code, limits: { wall_ms: 60_000 } },
      },
    },
  });

beforeAll(async () => {
  folder = await temporaryFolder();
  project = folder.path;
  dataDir = join(folder.path, "data");
  await mkdir(dataDir);
  const worker = join(ROOT, "workers/sandbox");
  await writeFile(
    join(project, "capabilities.yaml"),
    JSON.stringify({ capabilities: [{ name: "sandbox", path: worker }] }),
  );
  await writeFile(join(project, "one.yaml"), composition("print(6 * 7)"));
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

/** Runs a command with `--json` and holds what it prints against its schema. */
async function json(command: string, ...args: readonly string[]): Promise<unknown> {
  const { stdout } = await runCli([command, ...args, "--json"], { dataDir, cwd: project });
  const value: unknown = JSON.parse(stdout);
  expect(validateJsonSchema(SCHEMAS[command], value), stdout).toEqual([]);
  return value;
}

async function jsonLines(...args: readonly string[]): Promise<unknown[]> {
  const { stdout } = await runCli(["logs", ...args, "--json"], { dataDir, cwd: project });
  const rows = stdout.split("\n").filter((line) => line !== "");
  return rows.map((line) => {
    const row: unknown = JSON.parse(line);
    expect(validateJsonSchema(SCHEMAS["logs"], row), line).toEqual([]);
    return row;
  });
}

describe("what --json prints is what its schema says", () => {
  test("install-all, list, validate and remove", async () => {
    expect(await json("install-all")).toMatchObject([{ name: "sandbox", outcome: "installed" }]);
    const list = await json("list", "--envs");
    expect(list).toMatchObject({
      drift_detection: true,
      environments: [{ name: "sandbox", kind: "npm", state: "ready" }],
    });
    const valid = await json("validate", "capabilities.yaml");
    expect(valid).toMatchObject({ format: "capabilities_yaml", valid: true });
    await json("regenerate-manifest", "sandbox");
    await json("setup-host");
    expect(await json("remove", "sandbox", "--yes")).toMatchObject({ name: "sandbox" });
  });

  test("run, logs and retention", async () => {
    const done = await json("run", "one.yaml");
    expect(done).toMatchObject({ status: "completed", results: { wait: { stdout: "42\n" } } });
    const { nodes } = z.object({ nodes: z.array(z.object({ job_id: z.string() })) }).parse(done);
    const jobId = nodes[0]?.job_id ?? "";
    const rows = await jsonLines("--journal", "--job", jobId, "-n", "0");
    expect(rows).toContainEqual(expect.objectContaining({ event_type: "job_submitted" }));
    for (const row of rows) expect(row).toMatchObject({ job_id: jobId });
    expect(await jsonLines("--journal", "-n", "1")).toHaveLength(1);
    await jsonLines("--chunks");
    await jsonLines();
    await json("resume");
    expect(await json("retention", "--max-age-days", "1")).toMatchObject({ max_age_days: 1 });
  });

  test("retention of 0 days means no limit, as in cjm.yaml", async () => {
    expect(await json("retention", "--max-age-days", "0")).toMatchObject({
      max_age_days: null,
      records_deleted: 0,
    });
  });

  test("doctor names every check with what to do about it", async () => {
    const answer = await json("doctor");
    const { checks } = z
      .object({ checks: z.array(z.object({ name: z.string(), state: z.string() })) })
      .parse(answer);
    const names = checks.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining(["node", "python", "gpu", "disk", "journal", "workers", "cage"]),
    );
  });
});

describe("beside a live host", () => {
  test("status, top, retention and cancel ask it", async () => {
    const fifo = join(project, "fifo");
    await execa("mkfifo", [fifo]);
    await writeFile(
      join(project, "wait.yaml"),
      composition(`open(${JSON.stringify(fifo)}).read()`),
    );
    const run = startCli(["run", "wait.yaml", "--json"], { dataDir, cwd: project });
    // Opening it to write succeeds once the program has opened it to read.
    const release = await open(fifo, "w");

    const status = await json("status");
    expect(status).toMatchObject({ running: [{ instance: "sandbox" }] });
    const top = await json("top");
    expect(top).toMatchObject({ jobs: [{ instance: "sandbox" }] });
    const { lines } = await runInTerminal(["top", "--delay", "0.1"], {
      dataDir,
      cwd: project,
      keys: [["sandbox", "\u0003"]],
    });
    expect(lines.some((line) => line.startsWith("INSTANCE"))).toBe(true);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
    await json("retention", "--max-total-mb", "1000");

    const { id } = z
      .object({ running: z.array(z.object({ composition_id: z.string() })) })
      .parse(status)
      .running.map(({ composition_id }) => ({ id: composition_id }))[0] ?? { id: "" };
    expect(await json("cancel", id)).toMatchObject({ cancelled: true });
    const { exitCode } = await run;
    await release.close();
    expect(exitCode).toBe(130);
  });

  test("without one, status says so and top fails with its own code", async () => {
    expect(await json("status")).toMatchObject({ live: false });
    const { exitCode, stderr } = await runCli(["top"], { dataDir, cwd: project });
    expect(exitCode).toBe(3);
    expect(stderr).toContain("No host runs");
  });

  test("logs --follow shows what comes and ends with Ctrl-C", async () => {
    const follow = startCli(["logs", "--journal", "--follow", "-n", "0"], {
      dataDir,
      cwd: project,
    });
    const [first] = (await once(follow.stdout, "data")) as [Buffer];
    expect(first.toString()).toContain("worker_spawned");
    follow.kill("SIGINT");
    expect((await follow).exitCode).toBe(0);
  });
});
