import { expect, test } from "vitest";
import { Project, rows, run } from "./support.ts";

const CALLS = 200;
const PARTS = 5;

test("whatever a call accounts for before it answers is journaled", async () => {
  await using project = await Project.create();
  await project.add("late-accounts");
  await using pipeline = await project.open({ capabilities: ["late-accounts"] });
  await Promise.all(Array.from({ length: CALLS }, () => run(pipeline, "late-accounts", "work")));
  const accounts = await rows(pipeline, "part_done");
  const parts = Map.groupBy(accounts, ({ jobId }) => jobId);
  expect([...parts.values()].filter((own) => own.length === PARTS)).toHaveLength(CALLS);
});
