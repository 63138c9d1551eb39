import { existsSync } from "node:fs";
import { join } from "node:path";
import { DoorClient } from "../../door/index.ts";
import { CjmError } from "../../errors/index.ts";
import {
  acquireHostLock,
  DiagnosticsStore,
  readHostInfo,
  type Retention,
  type RetentionResult,
} from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { print, printJson } from "../terminal.ts";

export interface RetentionOptions extends GlobalOptions {
  readonly maxAgeDays?: string;
  readonly maxTotalMb?: string;
  readonly json?: boolean;
}

export async function retentionCommand(options: RetentionOptions): Promise<number> {
  const { dataDir, substrate } = await configOf(options);
  const days = numberOf("--max-age-days", options.maxAgeDays) ?? substrate.diagnosticsRetentionDays;
  const maxTotalMb =
    numberOf("--max-total-mb", options.maxTotalMb) ?? substrate.diagnosticsRetentionMaxMb;
  // Zero days or fewer mean "no limit", as in cjm.yaml; they must never mean "delete everything".
  const keep: Retention = { maxAgeDays: days > 0 ? days : undefined, maxTotalMb };
  const isBounded = keep.maxAgeDays !== undefined || keep.maxTotalMb !== undefined;
  const deleted = isBounded ? await apply(dataDir, keep) : NOTHING;
  if (options.json === true) {
    printJson({
      max_age_days: keep.maxAgeDays ?? null,
      max_total_mb: keep.maxTotalMb ?? null,
      records_deleted: deleted.recordsDeleted,
      chunks_deleted: deleted.chunksDeleted,
    });
  } else if (isBounded) {
    print(`deleted ${deleted.recordsDeleted} records and ${deleted.chunksDeleted} raw lines`);
  } else {
    print("No limit is set, so nothing is deleted. Use --max-age-days or --max-total-mb");
  }
  return EXIT.ok;
}

const NOTHING: RetentionResult = { recordsDeleted: 0, chunksDeleted: 0 };

/** A live host is the one writer of its diagnostics, so it is asked; else the lock makes us that. */
async function apply(dataDir: string, keep: Retention): Promise<RetentionResult> {
  const live = await readHostInfo(dataDir);
  if (live?.door != null) {
    await using client = new DoorClient(live.door);
    return await client.retain(keep);
  }
  const path = join(dataDir, "diagnostics.db");
  if (!existsSync(path)) return NOTHING;
  await using _lock = await acquireHostLock(dataDir, { pid: process.pid, door: null });
  await using store = await DiagnosticsStore.open(path);
  return await store.applyRetention(keep);
}

function numberOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value) && value >= 0) return value;
  throw new CjmError("CAPABILITY_INPUT", `${flag} ${text}: expected a number that is not negative`);
}
