import { existsSync } from "node:fs";
import { join } from "node:path";
import { DoorClient } from "../../door/index.ts";
import { CjmError } from "../../errors/index.ts";
import {
  acquireHostLock,
  DiagnosticsStore,
  openJournalDatabase,
  readHostInfo,
  removeBodies,
  type RemovedBodies,
  type Retention,
  type RetentionResult,
} from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { print, printJson } from "../terminal.ts";

export interface RetentionOptions extends GlobalOptions {
  readonly maxAgeDays?: string;
  readonly maxTotalMb?: string;
  readonly resultsMaxAgeDays?: string;
  readonly resultsMaxTotalMb?: string;
  readonly json?: boolean;
}

interface Keep {
  readonly diagnostics: Retention;
  readonly results: Retention;
}

type Deleted = RetentionResult & { readonly removed: RemovedBodies };

const NOTHING: Deleted = {
  recordsDeleted: 0,
  chunksDeleted: 0,
  removed: { bodies: 0, bytes: 0 },
};

export async function retentionCommand(options: RetentionOptions): Promise<number> {
  const { dataDir, substrate } = await configOf(options);
  const keep: Keep = {
    diagnostics: bounds(
      numberOf("--max-age-days", options.maxAgeDays) ?? substrate.diagnosticsRetentionDays,
      numberOf("--max-total-mb", options.maxTotalMb) ?? substrate.diagnosticsRetentionMaxMb,
    ),
    results: bounds(
      numberOf("--results-max-age-days", options.resultsMaxAgeDays),
      numberOf("--results-max-total-mb", options.resultsMaxTotalMb),
    ),
  };
  const isBounded = isBound(keep.diagnostics) || isBound(keep.results);
  const deleted = isBounded ? await apply(dataDir, keep) : NOTHING;
  const { bodies, bytes } = deleted.removed;
  if (options.json === true) {
    printJson({
      max_age_days: keep.diagnostics.maxAgeDays ?? null,
      max_total_mb: keep.diagnostics.maxTotalMb ?? null,
      records_deleted: deleted.recordsDeleted,
      chunks_deleted: deleted.chunksDeleted,
      results_max_age_days: keep.results.maxAgeDays ?? null,
      results_max_total_mb: keep.results.maxTotalMb ?? null,
      results_deleted: bodies,
      result_bytes_deleted: bytes,
    });
  } else if (isBounded) {
    print(`deleted ${deleted.recordsDeleted} records and ${deleted.chunksDeleted} raw lines`);
    if (isBound(keep.results)) {
      print(`deleted ${bodies} large results and files, ${Math.round(bytes / 2 ** 20)} MiB`);
    }
  } else {
    print("No limit is set, so nothing is deleted. Use --max-age-days or --max-total-mb");
  }
  return EXIT.ok;
}

/** Zero days or fewer mean "no limit", as in cjm.yaml; they must never mean "delete everything". */
function bounds(days: number | undefined, maxTotalMb: number | undefined): Retention {
  return { maxAgeDays: days !== undefined && days > 0 ? days : undefined, maxTotalMb };
}

function isBound({ maxAgeDays, maxTotalMb }: Retention): boolean {
  return maxAgeDays !== undefined || maxTotalMb !== undefined;
}

/** A live host is the one writer of its data, so it is asked; else the lock makes us that. */
async function apply(dataDir: string, keep: Keep): Promise<Deleted> {
  const live = await readHostInfo(dataDir);
  if (live?.door != null) {
    await using client = new DoorClient(live.door);
    return await client.retain(keep.diagnostics, keep.results);
  }
  if (!existsSync(dataDir)) return NOTHING;
  await using _lock = await acquireHostLock(dataDir, { pid: process.pid, door: null });
  return {
    ...(await deleteDiagnostics(join(dataDir, "diagnostics.db"), keep.diagnostics)),
    removed: await deleteBodies(dataDir, keep.results),
  };
}

async function deleteDiagnostics(path: string, keep: Retention): Promise<RetentionResult> {
  if (!isBound(keep) || !existsSync(path)) return NOTHING;
  await using store = await DiagnosticsStore.open(path);
  return await store.applyRetention(keep);
}

async function deleteBodies(dataDir: string, keep: Retention): Promise<RemovedBodies> {
  const path = join(dataDir, "journal.db");
  if (!isBound(keep) || !existsSync(path)) return NOTHING.removed;
  await using journal = await openJournalDatabase(path);
  return await removeBodies(dataDir, journal, keep);
}

function numberOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value) && value >= 0) return value;
  throw new CjmError("CAPABILITY_INPUT", `${flag} ${text}: expected a number that is not negative`);
}
