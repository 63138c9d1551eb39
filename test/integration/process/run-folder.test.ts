import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  HOST_SOCKET,
  prepareRunFolder,
  removeRunFolder,
  sweepRunFolders,
} from "../../../src/process/index.ts";

let parent = "";
beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), "cjm-r-"));
});
afterAll(() => rm(parent, { recursive: true, force: true }));

const LONG_AGO = new Date(Date.now() - 24 * 3_600_000);

async function oldFolder(name: string): Promise<string> {
  const folder = join(parent, name);
  await mkdir(folder, { mode: 0o700 });
  await writeFile(join(folder, "w123456.sock"), "");
  await utimes(folder, LONG_AGO, LONG_AGO);
  return folder;
}

test("a run folder is there while its host is, and is gone with it", async () => {
  const folder = join(parent, "cjm-00000000");
  await prepareRunFolder(folder);
  await writeFile(join(folder, "w.sock"), "");
  await removeRunFolder(folder);
  expect(existsSync(folder)).toBe(false);
});

test("folders of killed hosts are removed, and no others", async () => {
  const own = await oldFolder("cjm-0-aaaaaaaa");
  const stale = await oldFolder("cjm-0-bbbbbbbb");
  const shared = await oldFolder("cjm-0-cccccccc");
  await chmod(shared, 0o755);
  await oldFolder("cjm-something-else");
  const live = await oldFolder("cjm-dddddddd");
  await using server = createServer().listen(join(live, HOST_SOCKET));
  await once(server, "listening");
  await utimes(live, LONG_AGO, LONG_AGO);
  const starting = join(parent, "cjm-0-eeeeeeee");
  await prepareRunFolder(starting);

  const removed = await sweepRunFolders(own);
  expect(removed.map((folder) => basename(folder))).toEqual([basename(stale)]);
  expect(existsSync(stale)).toBe(false);
  expect([own, shared, live, starting].every(existsSync)).toBe(true);
});
