import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { acquireHostLock, openJournalDatabase, ResultFiles } from "../../../src/store/index.ts";
import { damagedJournals } from "../../chaos/faults/damage.ts";
import { canMountFragile, FragileDisk } from "../../chaos/faults/fragile-disk.ts";
import { canMount, SmallDisk } from "../../chaos/faults/small-disk.ts";
import { crashAndResume, runHost } from "../../support/crash-oracle.ts";
import { newDataDir, openQueue } from "../../support/queue-host.ts";

const isRoot = canMount();

let folder = "";
let expected: unknown;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-faults-"));
  const dataDir = await newDataDir();
  expected = (await runHost(dataDir)).printed;
  await rm(dataDir, { recursive: true });
});
afterAll(() => rm(folder, { recursive: true }));

describe("a host whose wall clock jumps", () => {
  test("ends as any other", async () => {
    expect(await crashAndResume([{ when: "future", unit: 30 }], expected)).toMatchObject({
      problems: [],
    });
  });

  test("between two lives ends as any other", async () => {
    const kills = [
      { when: "after", unit: 20 },
      { when: "past", unit: 2 },
    ] as const;
    expect((await crashAndResume(kills, expected)).problems).toEqual([]);
  });
});

describe.skipIf(!isRoot)("a host whose disk is full", () => {
  test.each([40])("at unit %i loses and repeats nothing", async (unit) => {
    using disk = SmallDisk.mount(8);
    const crash = await crashAndResume([{ when: "full", unit }], expected, disk);
    expect(crash.problems).toEqual([]);
  });

  test("fails a job whose result it cannot keep, and goes on when there is room", async () => {
    using disk = SmallDisk.mount(8);
    await using host = await openQueue({ dataDir: disk.path });
    host.executor.add("tool", ({ kwargs }) => "x".repeat(Number(kwargs["bytes"])));
    const filler = join(disk.path, "filler");
    await writeFile(filler, Buffer.alloc(5 * 1024 * 1024));
    const large = await host.queue.submit("tool", { bytes: 3_500_000 });
    await expect(large.result()).rejects.toMatchObject({
      message: expect.stringMatching(/ENOSPC/u) as unknown,
    });
    await rm(filler);
    const again = await host.queue.submit("tool", { bytes: 3_500_000 });
    expect(String(await again.result())).toHaveLength(3_500_000);
  });

  test("does not start, and says where", async () => {
    using disk = SmallDisk.mount(1);
    await writeFile(join(disk.path, "filler"), Buffer.alloc(1024 * 1024)).catch(() => undefined);
    const lock = acquireHostLock(join(disk.path, "data"), { pid: 1, door: null });
    await expect(lock).rejects.toMatchObject({
      code: "STORE_REJECTED",
      message: expect.stringContaining(disk.path) as unknown,
    });
  });
});

describe.skipIf(!canMountFragile())("a host whose disk dies", () => {
  test.each([25])("at unit %i and is repaired loses and repeats nothing", async (unit) => {
    using disk = FragileDisk.mount();
    const crash = await crashAndResume([{ when: "read-only", unit }], expected, disk);
    expect(crash).toEqual({ problems: [], wasKilled: true });
  });
});

describe.skipIf(!isRoot)("a read-only disk", () => {
  test("is named when a host starts on it", async () => {
    using disk = SmallDisk.mount(4);
    const path = disk.readOnly();
    await expect(acquireHostLock(path, { pid: 1, door: null })).rejects.toMatchObject({
      code: "STORE_REJECTED",
      message: expect.stringContaining(path) as unknown,
    });
  });

  test("lets what is stored be read, and takes nothing silently", async () => {
    using disk = SmallDisk.mount(8);
    const path = join(disk.path, "journal.db");
    const results = new ResultFiles(disk.path);
    const large = "y".repeat(300_000);
    const stored = await results.store(large);
    {
      await using store = await openJournalDatabase(path);
      await store.stage([{ op: "journal.append", event: { eventType: "x" } }]);
    }
    const view = disk.readOnly();
    const there = new ResultFiles(view);
    expect(await there.load(stored)).toBe(large);
    await expect(there.store(`${large}z`)).rejects.toThrow(/EROFS|ENOENT/u);
    await expect(openJournalDatabase(join(view, "journal.db"))).rejects.toMatchObject({
      code: "STORE_REJECTED",
      message: expect.stringContaining(view) as unknown,
    });
    await using store = await openJournalDatabase(path);
    expect(await store.queryJournal()).toHaveLength(1);
  });
});

test("a journal with random damage is refused by name and left as it is, or is whole", async () => {
  const tally = await damagedJournals(await mkdtemp(join(folder, "damage-")), 7, 150);
  expect(tally.faults).toEqual([]);
  expect(tally.refused).toBeGreaterThan(20);
});

describe("a data directory", () => {
  test("belongs to one host, by whatever path a second one comes", async () => {
    const data = await mkdtemp(join(folder, "one-"));
    await symlink(data, `${data}-link`);
    await using first = await acquireHostLock(data, { pid: process.pid, door: "/x/host.sock" });
    expect(first).toBeDefined();
    for (const path of [data, `${data}-link`]) {
      await expect(acquireHostLock(path, { pid: 2, door: null })).rejects.toMatchObject({
        code: "DATA_DIR_LOCKED",
        message: expect.stringContaining(`pid ${process.pid}`) as unknown,
      });
    }
  });

  test("is free as soon as its host is killed", async () => {
    const data = await mkdtemp(join(folder, "freed-"));
    const source = new URL("../../../src/store/index.ts", import.meta.url).href;
    const script = `const { acquireHostLock } = await import(${JSON.stringify(source)});
      await acquireHostLock(${JSON.stringify(data)}, { pid: process.pid, door: null });
      console.log("held"); setInterval(() => {}, 1e6);`;
    const holder = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(holder.stdout, "data");
    await expect(acquireHostLock(data, { pid: 1, door: null })).rejects.toMatchObject({
      code: "DATA_DIR_LOCKED",
    });
    holder.kill("SIGKILL");
    await once(holder, "exit");
    await using lock = await acquireHostLock(data, { pid: 1, door: null });
    expect(lock).toBeDefined();
  });

  test("with a lock file that is none is refused by the file's name", async () => {
    const data = await mkdtemp(join(folder, "lock-"));
    const path = join(data, "host.lock");
    await writeFile(path, "not a database at all".repeat(300));
    await expect(acquireHostLock(data, { pid: 1, door: null })).rejects.toMatchObject({
      code: "DATABASE_CORRUPT",
      message: expect.stringContaining(path) as unknown,
    });
    expect(await readFile(path, "utf8")).toBe("not a database at all".repeat(300));
  });
});
