import { DoorClient } from "../../door/index.ts";
import { CjmError } from "../../errors/index.ts";
import { acquireHostLock, openJournalDatabase, readHostInfo } from "../../store/index.ts";
import { join } from "node:path";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { print, printJson } from "../terminal.ts";

export interface CancelOptions extends GlobalOptions {
  readonly json?: boolean;
}

export async function cancelCommand(id: string, options: CancelOptions): Promise<number> {
  const { dataDir } = await configOf(options);
  const live = await readHostInfo(dataDir);
  const cancelled =
    live?.door == null ? await cancelStored(dataDir, id) : await cancelLive(live.door, id);
  if (options.json === true) printJson({ id, cancelled });
  else print(cancelled ? `cancelling ${id}` : `${id} is unknown or over`);
  return cancelled ? EXIT.ok : EXIT.usage;
}

async function cancelLive(door: string, id: string): Promise<boolean> {
  await using client = new DoorClient(door);
  return await client.cancel(id);
}

/** Records the intent: the next resume ends it instead of running it again. */
async function cancelStored(dataDir: string, id: string): Promise<boolean> {
  await using _lock = await acquireHostLock(dataDir, { pid: process.pid, door: null });
  await using store = await openJournalDatabase(join(dataDir, "journal.db"));
  const composition = await store.getComposition(id);
  const job = composition === undefined ? await store.getJob(id) : undefined;
  if (composition === undefined && job === undefined) {
    throw new CjmError("JOB_UNKNOWN", `There is no job or composition ${id} in ${dataDir}`);
  }
  const event = { eventType: "cancel_phase_changed", payload: { from: null, to: "cooperative" } };
  if (composition?.status === "running") {
    await store.stage([
      { op: "composition.update", id, changes: { cancelRequested: true } },
      { op: "journal.append", event: { ...event, compositionId: id } },
    ]);
    return true;
  }
  if (job?.status !== "pending" && job?.status !== "running") return false;
  await store.stage([
    { op: "job.update", id, changes: { cancelRequestedAt: new Date().toISOString() } },
    { op: "journal.append", event: { ...event, jobId: id } },
  ]);
  return true;
}
