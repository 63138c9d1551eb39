import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { installEnvironments, INSTALL_MS, runPytest } from "../ml/support/environment.ts";

const TESTS = fileURLToPath(new URL("../ml/qlora-trainer", import.meta.url));
const KILLS = 20;

beforeAll(installEnvironments, INSTALL_MS);

test(`a training that is killed at ${KILLS} further moments resumes to the bit`, async () => {
  const printed = await runPytest("qlora-trainer", TESTS, {
    args: ["test_resume.py", "-k", "killed"],
    env: { CJM_KILLS: String(KILLS) },
  });
  process.stdout.write(`${printed.trim().split("\n").at(-1)}\n`);
  expect(printed).toMatch(/23 passed/u);
}, 1_800_000);
