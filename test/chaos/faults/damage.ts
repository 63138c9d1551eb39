import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CjmError } from "../../../src/errors/index.ts";
import { openJournalDatabase } from "../../../src/store/index.ts";
import { below, randomFrom } from "../support/random.ts";

export interface DamageTally {
  refused: number;
  readable: number;
  readonly faults: string[];
}

const ROWS = 150;

/** A closed journal with rows of every table that a host reads at its start. */
async function makeJournal(path: string): Promise<Buffer> {
  {
    await using store = await openJournalDatabase(path);
    for (let row = 0; row < ROWS; row += 1) {
      const job = {
        id: `job-${row}`,
        capabilityInstanceId: "tool",
        kwargs: { text: "x".repeat(row * 5) },
        control: {},
        priority: 0,
        status: "pending",
        submittedAt: "2026-01-01T00:00:00.000Z",
      } as const;
      await store.stage([
        { op: "job.insert", job },
        { op: "journal.append", event: { eventType: "job_submitted", jobId: job.id } },
      ]);
    }
  }
  return await readFile(path);
}

function damage(random: () => number, whole: Buffer): Buffer {
  const bytes = Buffer.from(whole);
  const at = below(random, bytes.length);
  switch (below(random, 5)) {
    case 0:
      return bytes.subarray(0, at);
    case 1:
      return bytes.fill(0, at, Math.min(bytes.length, at + 4_096));
    case 2:
      return bytes.fill(
        random() < 0.5 ? 0xff : 0x41,
        at,
        Math.min(bytes.length, at + 1 + below(random, 64)),
      );
    case 3:
      for (let edits = 0; edits < 20; edits += 1) {
        bytes[below(random, bytes.length)] = below(random, 256);
      }
      return bytes;
    default:
      // In the header and the schema, where it hurts most.
      bytes[below(random, 4_096)] = below(random, 256);
      return bytes;
  }
}

/**
 * Opens a journal with random damage `count` times and reads all of it. What is refused must be a
 * typed error that names the file and leaves every byte of it; what is read must be what was written
 * or be refused.
 */
export async function damagedJournals(
  folder: string,
  seed: number,
  count: number,
): Promise<DamageTally> {
  const tally: DamageTally = { refused: 0, readable: 0, faults: [] };
  const random = randomFrom(seed);
  const path = join(folder, "journal.db");
  const whole = await makeJournal(path);
  for (let index = 0; index < count; index += 1) {
    const bytes = damage(random, whole);
    for (const suffix of ["-wal", "-shm"]) await rm(path + suffix, { force: true });
    await writeFile(path, bytes);
    const which = `seed ${seed}, damage ${index}`;
    const isRefused = await refuses(path, tally, which);
    if (isRefused && !(await readFile(path)).equals(bytes)) {
      tally.faults.push(`${which}: the refused file was changed`);
    }
  }
  return tally;
}

/** Opens and reads all of it; true if it is refused as damaged. */
async function refuses(path: string, tally: DamageTally, which: string): Promise<boolean> {
  try {
    await using store = await openJournalDatabase(path);
    await store.queryJournal();
    await store.listJobs();
    await store.listCompositions();
    await store.listProfiles();
    tally.readable += 1;
    return false;
  } catch (error) {
    if (error instanceof CjmError && error.message.includes(path)) tally.refused += 1;
    else tally.faults.push(`${which}: ${String(error)}`);
    return true;
  }
}
