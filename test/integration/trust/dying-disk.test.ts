import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { adoptOutputs } from "../../../src/capability/output-files.ts";
import { writeManifest } from "../../../src/config/index.ts";
import {
  DiagnosticsStore,
  openJournalDatabase,
  ResultFiles,
  SecretStore,
} from "../../../src/store/index.ts";
import { dirRef, fileRef } from "../../../src/worker/index.ts";
import { ContentFiles } from "../../../workers/adapter-registry/content-files.ts";
import { canMountFragile, FragileDisk } from "../../chaos/faults/fragile-disk.ts";
import { canMount, SmallDisk } from "../../chaos/faults/small-disk.ts";
import { runCli } from "../../support/cli.ts";

const ROOT = join(import.meta.dirname, "../../..");
const { signal } = new AbortController();

/** Everything that keeps a file for good; what each has resolved must be on the disk. */
const KEEPERS: Readonly<Record<string, (folder: string, value: string) => Promise<unknown>>> = {
  secret: (folder, value) =>
    new SecretStore(folder).set({ capability: "tool", key: "KEY" }, `secret ${value}`),
  manifest: (folder, value) =>
    writeManifest(join(folder, "manifests", "tool.json"), {
      format_version: "2.0",
      install: { command: ["tool"] },
      code: { name: "tool", version: value, sdk: "cjm", protocol: 1 },
    }),
  "large result": (folder, value) => new ResultFiles(folder).store(value.repeat(100_000)),
  "returned file": async (folder, value) => {
    const attempt = join(folder, "work", value);
    await mkdir(attempt, { recursive: true });
    await writeFile(join(attempt, "out.txt"), value);
    const returned = await fileRef(join(attempt, "out.txt"));
    return await adoptOutputs(returned, { attempt, files: join(folder, "files") });
  },
  adapter: async (folder, value) => {
    const made = join(folder, "work", value);
    await mkdir(made, { recursive: true });
    await writeFile(join(made, "adapter_model.safetensors"), value);
    await new ContentFiles(folder).take(await dirRef(made), signal);
  },
};

function filesIn(folder: string): Record<string, string> {
  const found = readdirSync(folder, { recursive: true, withFileTypes: true });
  const paths = found
    .filter((entry) => entry.isFile())
    .map((one) => join(one.parentPath, one.name));
  return Object.fromEntries(paths.map((path) => [path, readFileSync(path, "utf8")]));
}

describe.skipIf(!canMountFragile())("when the disk dies and is repaired", () => {
  test.each(Object.keys(KEEPERS))(
    "a %s that was kept is there, and no half of another",
    async (what) => {
      const keep = KEEPERS[what] ?? expect.unreachable();
      using disk = FragileDisk.mount();
      await keep(disk.path, "1.0.0");
      const kept = filesIn(disk.path);
      disk.die();
      await expect(keep(disk.path, "2.0.0")).rejects.toThrow(disk.path);
      disk.repair();
      expect(filesIn(disk.path)).toEqual(kept);
      await keep(disk.path, "2.0.0");
      expect(filesIn(disk.path)).not.toEqual(kept);
    },
  );

  test("a row that was committed is there", async () => {
    using disk = FragileDisk.mount();
    const path = join(disk.path, "journal.db");
    const append = (eventType: string) => [{ op: "journal.append", event: { eventType } }] as const;
    {
      const store = await openJournalDatabase(path, { probeIntervalMs: 1_000_000 });
      await store.stage(append("kept"));
      const gone = new Promise((resolve) => store.onAvailability(resolve));
      disk.die();
      const lost = store.stage(append("lost")).catch((error: unknown) => error);
      expect(await gone).toBe(false);
      await expect(openJournalDatabase(path)).rejects.toMatchObject({
        code: "STORE_REJECTED",
        message: expect.stringContaining(path) as unknown,
      });
      await store[Symbol.asyncDispose]();
      expect(await lost).toMatchObject({ code: "JOURNAL_UNAVAILABLE" });
    }
    disk.repair();
    await using store = await openJournalDatabase(path);
    expect((await store.queryJournal()).map((row) => row.eventType)).toEqual(["kept"]);
  });

  test("logs are lost and counted, and the next host logs again", async () => {
    using disk = FragileDisk.mount();
    const path = join(disk.path, "diagnostics.db");
    {
      await using store = await DiagnosticsStore.open(path);
      store.appendRecord({ message: "before" });
      await store.flush();
      disk.die();
      store.appendRecord({ message: "during" });
      await store.flush();
      expect(store.dropped).toBe(1);
    }
    disk.repair();
    await using store = await DiagnosticsStore.open(path);
    store.appendRecord({ message: "after" });
    await store.flush();
    expect(store.dropped).toBe(0);
  });
});

/** What cannot be done there, each by the real program. */
const COMMANDS = [
  ["new", "tool"],
  ["types", "--out", "types.d.ts"],
  ["set-secret", "sandbox", "KEY", "--stdin"],
  ["regenerate-manifest", "sandbox"],
  ["install-all", "--only", "sandbox"],
  ["remove", "sandbox", "--yes"],
  ["resume"],
];

/** Where nothing more can be written, with a project. */
function deadEnd(disk: SmallDisk, kind: "full" | "read-only"): string {
  for (const folder of ["project", "data"]) mkdirSync(join(disk.path, folder));
  const list = `capabilities: [{ name: sandbox, path: ${ROOT}/workers/sandbox, env: npm }]\n`;
  writeFileSync(join(disk.path, "project", "capabilities.yaml"), list);
  if (kind === "read-only") return disk.readOnly();
  disk.fill();
  return disk.path;
}

describe.skipIf(!canMount()).each(["full", "read-only"] as const)(
  "on a disk that is %s",
  (kind) => {
    test.each(COMMANDS)(
      "cjm-ctl %s says where, in one line, and changes nothing",
      async (...args) => {
        using disk = SmallDisk.mount(1);
        const place = deadEnd(disk, kind);
        const before = filesIn(disk.path);
        const { exitCode, stderr } = await runCli(args, {
          dataDir: join(place, "data"),
          cwd: join(place, "project"),
          input: "a secret value",
        });
        expect(stderr).toMatch(new RegExp(`^error: ${place}/[^\n]+$`, "u"));
        expect(exitCode).toBe(3);
        const ofUser = (files: Record<string, string>): unknown =>
          Object.entries(files).filter(([path]) => path.startsWith(join(disk.path, "project")));
        expect(ofUser(filesIn(disk.path))).toEqual(ofUser(before));
      },
    );
  },
);
