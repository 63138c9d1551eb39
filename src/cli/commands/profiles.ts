import { join } from "node:path";
import { DoorClient } from "../../door/index.ts";
import { ProfileBook } from "../../queue/index.ts";
import {
  acquireHostLock,
  openJournalDatabase,
  openJournalReader,
  type ProfileRecord,
  readHostInfo,
} from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { duration, print, printJson, table } from "../terminal.ts";

export interface ProfilesOptions extends GlobalOptions {
  readonly capability?: string;
  readonly json?: boolean;
}

/** What jobs were measured to need: listed for people, or as JSON with everything. */
export async function profilesCommand(options: ProfilesOptions): Promise<number> {
  const { dataDir } = await configOf(options);
  await using store = await openJournalReader(join(dataDir, "journal.db"));
  const records = (await store?.listProfiles(options.capability)) ?? [];
  if (options.json === true) printJson(records.map(({ body }) => body));
  else print(records.length === 0 ? "Nothing was measured yet." : render(records));
  return EXIT.ok;
}

/** Forgets what was measured; the next job of each key is its measurement again. */
export async function clearProfilesCommand(options: ProfilesOptions): Promise<number> {
  const { dataDir } = await configOf(options);
  const live = await readHostInfo(dataDir);
  const cleared =
    live?.door == null
      ? await clearStored(dataDir, options.capability)
      : await clearLive(live.door, options.capability);
  if (options.json === true) printJson({ cleared });
  else print(`forgot ${cleared} profiles`);
  return EXIT.ok;
}

async function clearLive(door: string, capability: string | undefined): Promise<number> {
  await using client = new DoorClient(door);
  return await client.clearProfiles(capability);
}

async function clearStored(dataDir: string, capability: string | undefined): Promise<number> {
  await using _lock = await acquireHostLock(dataDir, { pid: process.pid, door: null });
  await using store = await openJournalDatabase(join(dataDir, "journal.db"));
  const records = await store.listProfiles(capability);
  if (records.length > 0) {
    await store.stage(records.map(({ key }) => ({ op: "profile.delete", key })));
  }
  return records.length;
}

function render(records: readonly ProfileRecord[]): string {
  const rows = new ProfileBook(records)
    .list()
    .map((profile) => [
      profile.key.capability,
      profile.key.version,
      profile.key.configHash.slice(7, 15),
      profile.key.bucket === null ? "-" : String(profile.key.bucket),
      profile.key.gpuModel ?? "no GPU",
      `${profile.successes}/${profile.count}`,
      `VRAM ${megabytes(profile.vramPeakMb)}`,
      `RAM ${megabytes(profile.ramPeakMb)}`,
      duration(profile.durationMs.mean),
    ]);
  const head = [
    "CAPABILITY",
    "VERSION",
    "CONFIG",
    "INPUT",
    "GPU",
    "OK",
    "PEAK",
    "PEAK",
    "MEAN TIME",
  ];
  return table([head, ...rows]);
}

function megabytes({ count, max }: { readonly count: number; readonly max: number }): string {
  return count === 0 ? "?" : `${Math.ceil(max)} MiB`;
}
