import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createWorkerApp, type WorkerApp } from "cjm-substrate/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sandbox } from "../../../workers/sandbox/capability.ts";

let app: WorkerApp;
let folder: string;

const post = async (path: string, body: unknown): Promise<{ status: number; body: unknown }> => {
  const response = await app.request(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
};
const execute = (kwargs: unknown, jobId = "job") =>
  post("/execute", { kwargs, envelope: { job_id: jobId, output_folder: folder } });

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "cjm-sandbox-test-"));
  app = createWorkerApp(sandbox, { dataFolder: folder });
  await post("/initialize", { default_limits: { wall_ms: 20_000 } });
});
afterAll(async () => {
  await post("/cleanup", {});
  rmSync(folder, { recursive: true, force: true });
});

describe("the sandbox as a worker", () => {
  test("runs by default and returns everything the schema names", async () => {
    const { status, body } = await execute({ code: "print(input())", stdin: "hi", collect: ["x"] });
    expect({ status, body }).toMatchObject({
      status: 200,
      body: { status: "ok", stdout: "hi\n", limits: { wall_ms: 20_000 }, files_refused: {} },
    });
  });

  test("names every bad field at once", async () => {
    const { status, body } = await execute({ code: 1, language: "perl", limits: { wall_ms: -1 } });
    const text = JSON.stringify(body);
    expect(status).toBe(400);
    for (const field of ["code", "language", "limits.wall_ms"]) expect(text).toContain(field);
  });

  test("checks cases, runs tests and says what isolation there is", async () => {
    const cases = await execute({
      action: "check_cases",
      code: "def f(x): return x + 1",
      function: "f",
      cases: [{ args: [1], expected: 2 }],
    });
    const tests = await execute({
      action: "run_tests",
      code: "def f(): return 1",
      tests:
        "import unittest\nfrom main import f\nclass T(unittest.TestCase):\n  def test_f(self): self.assertEqual(f(), 1)",
    });
    const probe = await execute({ action: "probe" });
    expect(cases.body).toMatchObject({ trust: "isolated", all_passed: true });
    expect(tests.body).toMatchObject({ trust: "in_process", all_passed: true });
    expect(probe).toMatchObject({
      status: 200,
      body: { backends: [{ name: "nsjail" }, { name: "bubblewrap", usable: true, reason: null }] },
    });
  });

  test("cancels one call and leaves the others", async () => {
    const slow = execute({ language: "bash", code: "sleep 60" }, "slow");
    const other = execute({ code: "import time; time.sleep(0.3); print('done')" }, "other");
    await expect
      .poll(async () => (await post("/cancel", { job_id: "slow" })).body)
      .toMatchObject({ status: "cancelled" });
    expect((await slow).status).toBe(409);
    expect((await other).body).toMatchObject({ status: "ok", stdout: "done\n" });
  });
});
