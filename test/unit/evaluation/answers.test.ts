import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { capability } from "../../../workers/evaluation/capability.ts";
import { CapabilityUnderTest } from "../../support/capability-under-test.ts";

let folder: string;
let evaluation: CapabilityUnderTest;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "cjm-evaluation-"));
  evaluation = await CapabilityUnderTest.start(capability, { outputFolder: folder });
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const task = (id: string, family: string): object => {
  return { id, family, prompt: `def ${id}():`, function: id, cases: [{ expected: 1 }] };
};
const tasks = [task("one", "x"), task("two", "y")];
const hash = `sha256:${"0".repeat(64)}`;

async function planned(samples = 2): Promise<unknown[]> {
  const candidates = [{ id: "base" }, { id: "rec", file_path: "/a", file_hash: hash, rank: 3 }];
  return (await evaluation.call("plan_answers", { candidates, tasks, samples })).at("items");
}

describe("questions", () => {
  test("are asked of every candidate alike, each sample with a seed of its own", async () => {
    const items = (await planned()) as { candidate: string; task: string; seed: number }[];
    expect(items.map(({ candidate, task: name, seed }) => [candidate, name, seed])).toEqual([
      ["base", "one", 0],
      ["base", "one", 1],
      ["base", "two", 2],
      ["base", "two", 3],
      ["rec", "one", 0],
      ["rec", "one", 1],
      ["rec", "two", 2],
      ["rec", "two", 3],
    ]);
    expect(items[0]).toMatchObject({ adapters: [] });
    expect(items[4]).toMatchObject({ adapters: [{ path: "/a", sha256: hash }] });
  });

  test("become programs: the first fenced block, or the text, behind the prefix", async () => {
    const items = (await planned(1)).slice(0, 4) as { prefix: string }[];
    for (const item of items) item.prefix = "# given\n";
    const answers = [
      "plain",
      { text: "Sure:\n```python\ncode\n```\nand\n```\nother\n```", tokens: 3 },
      "```\nnever closed",
      "",
    ];
    const { value } = await evaluation.call("plan_checks", { items, answers });
    expect((value as { checks: { code: string }[] }).checks.map(({ code }) => code)).toEqual([
      "# given\nplain",
      "# given\ncode\n",
      "# given\nnever closed",
      "# given\n",
    ]);
    await expect(evaluation.call("plan_checks", { items, answers: ["one"] })).rejects.toMatchObject(
      { code: "CAPABILITY_INPUT" },
    );
  });

  test("refuse two tasks or candidates of one name", async () => {
    const candidates = [{ id: "a" }, { id: "a" }];
    await expect(evaluation.call("plan_answers", { candidates, tasks })).rejects.toMatchObject({
      message: expect.stringContaining('"a" is there twice') as string,
    });
  });
});

describe("a score", () => {
  test("counts by task and family, with pass@k, diversity and fitness", async () => {
    const items = await planned();
    const right = [1, 0, 0, 0, 1, 1, 1, 0].map((mark) => ({ all_passed: mark === 1 }));
    const { value } = await evaluation.call("score", { items, checks: right, k: [1, 2, 3] });
    const [base, rec] = (value as { candidates: object[] }).candidates;
    expect(base).toMatchObject({ id: "base", samples: 4, pass_rate: 0.25 });
    expect(rec).toMatchObject({
      id: "rec",
      pass_rate: 0.75,
      pass_at_k: [
        { k: 1, value: 0.75 },
        { k: 2, value: 1 },
        { k: 3, value: null, too_few: ["one", "two"] },
      ],
      families: [
        { family: "x", pass_rate: 1 },
        { family: "y", pass_rate: 0.5 },
      ],
      diversity: 0.5,
    });
    expect((rec as { fitness: number }).fitness).toBeCloseTo(0.7 * 0.75 + 0.3 * 0.5, 12);
    expect(evaluation.accounts.at(-1)).toMatchObject({
      type: "candidate_scored",
      payload: { candidate: "rec", pass_rate: 0.75 },
    });
  });

  test("measures diversity against earlier peers too, but not against an older self", async () => {
    const items = (await planned(1)).filter(
      (item) => (item as { candidate: string }).candidate === "rec",
    );
    const checks = [{ all_passed: true }, { all_passed: true }];
    const peers = ["rec", "peer"].map((id) => {
      return {
        id,
        tasks: [
          { task: "one", n: 1, c: 1 },
          { task: "two", n: 1, c: 0 },
        ],
      };
    });
    const scored = await evaluation.call("score", { items, checks, peers });
    expect(scored.at("candidates.0.diversity")).toBe(0.5);
  });

  test("is refused where a check is missing or did not run", async () => {
    const items = await planned(1);
    await expect(evaluation.call("score", { items, checks: [] })).rejects.toMatchObject({
      code: "CAPABILITY_INPUT",
    });
    const broken = items.map(() => ({ __error__: { message: "no jail" } }));
    await expect(evaluation.call("score", { items, checks: broken })).rejects.toMatchObject({
      code: "CAPABILITY_INPUT",
    });
  });
});

test("pairs members of lists of one length, and only those", async () => {
  const { value } = await evaluation.call("pair", { items: [1, { a: 2 }], results: ["x", null] });
  expect(value).toEqual({
    pairs: [
      { item: 1, result: "x" },
      { item: { a: 2 }, result: null },
    ],
  });
  await expect(evaluation.call("pair", { items: [1], results: [] })).rejects.toMatchObject({
    code: "CAPABILITY_INPUT",
  });
});
