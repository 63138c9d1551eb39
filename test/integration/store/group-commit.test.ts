import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { openJournalDatabase, type StoreWrite } from "../../../src/store/index.ts";

type Step = { readonly op: "insert" | "update" | "append"; readonly id: string };

const steps: fc.Arbitrary<Step> = fc.record({
  op: fc.constantFrom("insert" as const, "update" as const, "append" as const),
  id: fc.constantFrom("a", "b", "c", "d"),
});
/** Turns of the event loop, each with the units staged in it. */
const turns = fc.array(fc.array(fc.array(steps, { maxLength: 4 }), { maxLength: 5 }), {
  maxLength: 4,
});

function toWrite({ op, id }: Step): StoreWrite {
  if (op === "append") return { op: "journal.append", event: { eventType: "x", jobId: id } };
  if (op === "update") return { op: "job.update", id, changes: { priority: 1 } };
  return {
    op: "job.insert",
    job: {
      id,
      capabilityInstanceId: "i",
      kwargs: {},
      control: {},
      priority: 0,
      status: "pending",
      submittedAt: "2026-01-01T00:00:00.000Z",
    },
  };
}

/** What units do one after another, each all or nothing. */
class Model {
  readonly jobs: string[] = [];
  readonly journal: string[] = [];

  run(unit: readonly Step[]): boolean {
    const jobs = [...this.jobs];
    const journal: string[] = [];
    for (const { op, id } of unit) {
      const exists = jobs.includes(id);
      if (op === "append") journal.push(id);
      else if (exists !== (op === "update")) return false;
      else if (op === "insert") jobs.push(id);
    }
    this.jobs.splice(0, Infinity, ...jobs);
    this.journal.push(...journal);
    return true;
  }
}

test("however units share commits, each does what it would do alone, in order", async () => {
  await fc.assert(
    fc.asyncProperty(turns, async (plan) => {
      const folder = await mkdtemp(join(tmpdir(), "cjm-commit-"));
      try {
        await using store = await openJournalDatabase(join(folder, "journal.db"));
        const model = new Model();
        for (const units of plan) {
          const staged = units.map((unit) => store.stage(unit.map(toWrite)));
          const outcomes = await Promise.allSettled(staged);
          const expected = units.map((unit) => (model.run(unit) ? "fulfilled" : "rejected"));
          expect(outcomes.map(({ status }) => status)).toEqual(expected);
        }
        expect((await store.listJobs()).map(({ id }) => id)).toEqual(model.jobs);
        const journal = await store.queryJournal();
        expect(journal.map(({ jobId }) => jobId)).toEqual(model.journal);
        expect(journal.map(({ seq }) => seq)).toEqual(model.journal.map((_, index) => index + 1));
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    }),
    { numRuns: 60 },
  );
});
