import { beforeAll, expect, test } from "vitest";
import { installTrainer, pytest } from "../ml/support/trainer.ts";

const KILLS = 20;

beforeAll(installTrainer, 1_200_000);

test(`a training that is killed at ${KILLS} further moments resumes to the bit`, async () => {
  const printed = await pytest(["test_resume.py", "-k", "killed"], { CJM_KILLS: String(KILLS) });
  process.stdout.write(`${printed.trim().split("\n").at(-1)}\n`);
  expect(printed).toMatch(/23 passed/u);
}, 1_800_000);
