import { mkdir, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { composition, ref } from "../../../src/composition/index.ts";
import { removeBodies } from "../../../src/store/index.ts";
import { newDataDir, openQueue, type QueueHost } from "../../support/queue-host.ts";
import { untilCancelled } from "../../support/fake-executor.ts";

const DAY_MS = 86_400_000;
const large = (letter: string): string => letter.repeat(300_000);
const hexOf = (digit: string): string => digit.repeat(64);
const fileRef = (dataDir: string, digit: string) => ({
  __wire__: "file.ref",
  data: { path: adopted(dataDir, digit), size: 4, sha256: `sha256:${hexOf(digit)}` },
});

function adopted(dataDir: string, digit: string): string {
  const hex = hexOf(digit);
  return join(dataDir, "files", hex.slice(0, 2), hex, "model.bin");
}

/** A file that a finished job has left, as the executor adopts one. */
async function adopt(dataDir: string, digit: string): Promise<void> {
  const path = adopted(dataDir, digit);
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, "file");
}

/** Makes everything that is kept by content look as old as that. */
async function age(dataDir: string, days: number): Promise<void> {
  const then = new Date(Date.now() - days * DAY_MS);
  for (const kind of ["results", "files"]) {
    for (const path of await readdir(join(dataDir, kind), { recursive: true })) {
      await utimes(join(dataDir, kind, path), then, then);
    }
  }
}

async function bodies(dataDir: string): Promise<number> {
  const names = await Promise.all(
    ["results", "files"].map((kind) => readdir(join(dataDir, kind), { recursive: true })),
  );
  return names.flat().filter((name) => /\.(?:json|bin)$/u.test(name)).length;
}

/** A host whose tool gives a large result that names an adopted file. */
async function host(dataDir: string): Promise<QueueHost> {
  const opened = await openQueue({ dataDir });
  opened.executor.add("tool", ({ kwargs }) => {
    const digit = String(kwargs["digit"]);
    return { text: large(digit), file: fileRef(dataDir, digit) };
  });
  opened.executor.add("slow", untilCancelled);
  return opened;
}

describe("bodies of results", () => {
  test("go when their work ended long ago; the row, its hash and the journal stay", async () => {
    const dataDir = await newDataDir();
    await using opened = await host(dataDir);
    await adopt(dataDir, "a");
    const job = await opened.queue.submit("tool", { digit: "a" });
    await job.result();
    await age(dataDir, 3);
    expect(await removeBodies(dataDir, opened.store, { maxAgeDays: 2 })).toEqual({
      bodies: 0,
      bytes: 0,
    });
    // Less than its job has been over by now.
    const removed = await removeBodies(dataDir, opened.store, { maxAgeDays: 1e-9 });
    expect(removed).toMatchObject({ bodies: 2 });
    expect(removed.bytes).toBeGreaterThan(300_000);
    expect(await bodies(dataDir)).toBe(0);
    expect(await opened.store.queryJournal({ eventType: "bodies_removed" })).toMatchObject([
      { payload: removed },
    ]);
    const record = await opened.store.getJob(job.id);
    expect(record?.result).toMatchObject({ kind: "file" });
    await rm(dataDir, { recursive: true });
  });

  test("stay while unfinished work names them, the files in a stored result too", async () => {
    const dataDir = await newDataDir();
    await using opened = await host(dataDir);
    await adopt(dataDir, "a");
    await adopt(dataDir, "b");
    await adopt(dataDir, "c");
    await opened.queue.submitComposition(
      composition({
        made: { capability: "tool", kwargs: { digit: "a" } },
        used: { capability: "slow", kwargs: { file: ref("made", "file") } },
      }),
    );
    await opened.executor.sent(2);
    await opened.queue.submit("slow", { file: fileRef(dataDir, "b") });
    await age(dataDir, 30);
    const removed = await removeBodies(dataDir, opened.store, { maxAgeDays: 1, maxTotalMb: 0 });
    expect(removed).toEqual({ bodies: 1, bytes: 4 });
    expect(await bodies(dataDir)).toBe(3);
    await rm(dataDir, { recursive: true });
  });

  test("go oldest first until the rest fits, and are shown as removed", async () => {
    const dataDir = await newDataDir();
    let id = "";
    {
      await using opened = await host(dataDir);
      await adopt(dataDir, "a");
      const old = await opened.queue.submit("tool", { digit: "a" });
      await old.result();
      id = old.id;
      await age(dataDir, 1);
      await (await opened.queue.submit("tool", { digit: "b" })).result();
      expect(await removeBodies(dataDir, opened.store, { maxTotalMb: 0.4 })).toMatchObject({
        bodies: 1,
      });
      expect(await removeBodies(dataDir, opened.store, {})).toMatchObject({ bodies: 0 });
    }
    await using opened = await host(dataDir);
    expect((await opened.queue.getJob(id))?.result).toMatchObject({ __wire__: "result.removed" });
    await rm(dataDir, { recursive: true });
  });
});
