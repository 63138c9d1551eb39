import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { runCli, startCli, temporaryFolder } from "../support/cli.ts";

const COMPOSITION = "examples/grade-programs/composition.yaml";
const VERDICTS = {
  "roman-numerals": "ok",
  "binary-search": "ok",
  "leap-years": "nonzero",
  "collatz-forever": "wall_timeout",
  "memory-hog": "oom",
  "endless-printer": "output_limit",
  "phones-home": "nonzero",
  "writes-to-the-system": "nonzero",
};

const resultSchema = z.object({
  status: z.string(),
  nodes: z.array(z.object({ id: z.string(), state: z.string(), job_id: z.string().nullable() })),
  results: z.record(z.string(), z.unknown()),
});
const rowSchema = z.object({
  seq: z.number(),
  event_type: z.string(),
  job_id: z.string().nullable(),
  capability_instance_id: z.string().nullable(),
  payload: z.record(z.string(), z.unknown()),
});

let folder: Awaited<ReturnType<typeof temporaryFolder>>;

beforeAll(async () => {
  folder = await temporaryFolder();
  const install = await runCli(["install-all", "--only", "sandbox", "gpu-monitor"], {
    dataDir: folder.path,
  });
  expect(install).toMatchObject({ exitCode: 0 });
}, 120_000);

afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

describe("the main job", () => {
  test("grades eight programs, each in a jail of its own", async () => {
    const run = await runCli(["run", COMPOSITION, "--json"], { dataDir: folder.path });
    expect(run.stderr).toBe("");
    expect(run.exitCode).toBe(0);
    const done = resultSchema.parse(JSON.parse(run.stdout));
    expect(done.status).toBe("completed");
    const verdicts = Object.keys(VERDICTS).map((name) => [
      name,
      z.object({ status: z.string() }).parse(done.results[name]).status,
    ]);
    expect(Object.fromEntries(verdicts)).toEqual(VERDICTS);
    const { stdout } = z.object({ stdout: z.string() }).parse(done.results["grades"]);
    expect(stdout).toContain("2 of 8 programs passed their tests");

    const rows = await journal();
    expectOneTerminalRowEach(rows, done.nodes.length);
    expect(mostAtOnce(rows, "sandbox")).toBeGreaterThanOrEqual(2);
    const spawned = rows.filter(({ event_type: type }) => type === "worker_spawned");
    expect(spawned.map(({ payload }) => payload["cage"])).not.toContain("none");
  });

  test("leaves no process when its host is killed in the middle", async () => {
    const host = startCli(["run", COMPOSITION], { dataDir: folder.path });
    await printed(host.stdout, "collatz-forever  running");
    const before = await ownProcesses();
    expect(before.length).toBeGreaterThan(0);
    host.kill("SIGKILL");
    await host;
    await expect.poll(ownProcesses, { timeout: 20_000 }).toEqual([]);

    const resumed = await runCli(["resume", "--json"], { dataDir: folder.path });
    expect(resumed.exitCode).toBe(0);
    const done = resultSchema.parse(JSON.parse(resumed.stdout));
    expect(done.nodes.map(({ state }) => state)).toEqual(done.nodes.map(() => "completed"));
  });

  test("shows what happened afterwards", async () => {
    const list = await runCli(["list"], { dataDir: folder.path });
    expect(list.stdout).toMatch(/sandbox\s+0\.1\.0\s+installed/u);
    const job =
      (await journal()).find(({ event_type: type }) => type === "job_submitted")?.job_id ?? "";
    const logs = await runCli(["logs", "--journal", "--job", job], { dataDir: folder.path });
    expect(logs.stdout).toContain("job_submitted");
    expect(logs.stdout).toContain("state_transition");
  });
});

/** Resolves when the stream has carried `text`; it is read on, so that its writer never blocks. */
async function printed(stream: Readable, text: string): Promise<void> {
  const found = Promise.withResolvers<void>();
  let seen = "";
  stream.on("data", (chunk: Buffer) => {
    seen += chunk.toString("utf8");
    if (seen.includes(text)) found.resolve();
  });
  stream.once("end", () => {
    found.reject(new Error(`ended without ${text}: ${seen}`));
  });
  await found.promise;
}

async function journal(): Promise<z.output<typeof rowSchema>[]> {
  const logs = await runCli(["logs", "--journal", "--json", "-n", "0"], { dataDir: folder.path });
  return logs.stdout.split("\n").map((line) => rowSchema.parse(JSON.parse(line)));
}

function expectOneTerminalRowEach(rows: readonly z.output<typeof rowSchema>[], jobs: number): void {
  const terminal = rows.filter(
    ({ event_type: type, job_id: jobId, payload }) =>
      type === "state_transition" && jobId !== null && "job_snapshot" in payload,
  );
  expect(terminal.length).toBe(jobs);
  expect(new Set(terminal.map(({ job_id: jobId }) => jobId)).size).toBe(jobs);
}

/** Most jobs of an instance that ran at the same time, by the journal. */
function mostAtOnce(rows: readonly z.output<typeof rowSchema>[], instance: string): number {
  const running = new Set<string | null>();
  let most = 0;
  for (const row of rows) {
    const { job_id: jobId, payload } = row;
    if (row.event_type !== "state_transition" || row.capability_instance_id !== instance) continue;
    if (payload["to"] === "running") running.add(jobId);
    else running.delete(jobId);
    most = Math.max(most, running.size);
  }
  return most;
}

/** Processes whose environment names this test's data directory, workers and what they started. */
async function ownProcesses(): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const environ = await readFile(join("/proc", pid, "environ"), "utf8").catch(() => "");
      const isOurs =
        environ.includes(`CJM_CAPABILITY_DATA_DIR=${folder.path}`) ||
        environ.includes(`CJM_DATA_DIR=${folder.path}`);
      return isOurs && pid !== String(process.pid) ? [pid] : [];
    }),
  );
  return found.flat();
}
