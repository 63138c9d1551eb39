import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { CjmError } from "../../errors/index.ts";
import type { DiagnosticsReader, openJournalReader } from "../../store/index.ts";
import { isRecord } from "../../util/record.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, harmless, print, printError } from "../terminal.ts";

export interface LogsOptions extends GlobalOptions {
  readonly job?: string;
  readonly run?: string;
  readonly session?: string;
  readonly level?: string;
  readonly journal?: boolean;
  readonly chunks?: boolean;
  readonly limit: string;
  readonly follow?: boolean;
  readonly json?: boolean;
}

/** One entry of whichever store is shown. */
interface Entry {
  readonly seq: number;
  readonly line: string;
  readonly data: object;
}

/** Reads entries after a cursor, or the newest `limit` of them. */
type Read = (cursor: { readonly afterSeq?: number; readonly limit?: number }) => Promise<Entry[]>;

const POLL_MS = 250;

export async function logsCommand(options: LogsOptions): Promise<number> {
  const limit = checkOptions(options);
  const { dataDir } = await configOf(options);
  const stop = new AbortController();
  process.once("SIGINT", () => {
    stop.abort();
  });
  await using stack = new AsyncDisposableStack();
  const read = await openWhenThere(dataDir, { options, stop: stop.signal, stack });
  if (read === undefined) return EXIT.ok;
  const show = (entries: readonly Entry[]): number => {
    for (const entry of entries)
      print(options.json === true ? JSON.stringify(snakeKeys(entry.data)) : entry.line);
    return entries.at(-1)?.seq ?? 0;
  };
  let seen = show(await read(limit === 0 ? {} : { limit }));
  while (options.follow === true && !stop.signal.aborted) {
    await delay(POLL_MS, undefined, { signal: stop.signal }).catch(() => undefined);
    seen = Math.max(seen, show(await read({ afterSeq: seen })));
  }
  return EXIT.ok;
}

/** Filters that a view cannot honour are refused, not dropped. */
function checkOptions(options: LogsOptions): number {
  const { journal, run, chunks, job, level } = options;
  const limit = Number(options.limit);
  if (options.limit.trim() === "" || !Number.isInteger(limit) || limit < 0) {
    throw refused(`--limit ${options.limit}: expected a whole number, 0 for all`);
  }
  const isJournal = journal === true || run !== undefined;
  if (isJournal && chunks === true) throw refused("--chunks and the journal are two views");
  if (isJournal && level !== undefined) throw refused("--level: journal rows have no level");
  if (chunks === true && (job ?? level) !== undefined) {
    throw refused("--chunks: raw output is kept by worker session; use --session");
  }
  return limit;
}

function refused(message: string): CjmError {
  return new CjmError("CAPABILITY_INPUT", message);
}

/** With `--follow`, waits for the first host that records anything. */
async function openWhenThere(
  dataDir: string,
  context: { options: LogsOptions; stop: AbortSignal; stack: AsyncDisposableStack },
): Promise<Read | undefined> {
  const { options, stop, stack } = context;
  for (let isTold = false; !stop.aborted; isTold = true) {
    const read = await openSource(dataDir, options, stack);
    if (read !== undefined) return read;
    if (!isTold) printError("Nothing has been recorded yet.");
    if (options.follow !== true) return undefined;
    await delay(POLL_MS, undefined, { signal: stop }).catch(() => undefined);
  }
  return undefined;
}

async function openSource(
  dataDir: string,
  options: LogsOptions,
  stack: AsyncDisposableStack,
): Promise<Read | undefined> {
  if (options.journal === true || options.run !== undefined) {
    const { openJournalReader } = await import("../../store/journal-database.ts");
    const store = await openJournalReader(join(dataDir, "journal.db"));
    return store === undefined ? undefined : journalSource(stack.use(store), options);
  }
  // Only this file of the store: the rest of it takes longer to load than a query takes.
  const { DiagnosticsReader } = await import("../../store/diagnostics-reader.ts");
  const store = DiagnosticsReader.open(join(dataDir, "diagnostics.db"));
  if (store === undefined) return undefined;
  stack.use(store);
  return options.chunks === true ? chunkSource(store, options) : recordSource(store, options);
}

type JournalReads = NonNullable<Awaited<ReturnType<typeof openJournalReader>>>;

function journalSource(store: JournalReads, { job, run, session }: LogsOptions): Read {
  return async (cursor) => {
    const rows = await store.queryJournal({
      jobId: job,
      runId: run,
      workerSessionId: session,
      ...newestFirst(cursor),
    });
    return ordered(rows, cursor).map((row) => ({
      seq: row.seq,
      data: row,
      line: [
        color.dim(clock(row.ts)),
        harmless(row.eventType).padEnd(20),
        color.dim(short(row.compositionId)),
        color.dim(short(row.jobId)),
        harmless(row.nodeId ?? row.capabilityInstanceId ?? "-").padEnd(14),
        harmless(compactPayload(row.payload)),
      ].join(" "),
    }));
  };
}

function recordSource(store: DiagnosticsReader, { job, session, level }: LogsOptions): Read {
  return async (cursor) => {
    const rows = await store.queryRecords({
      jobId: job,
      workerSessionId: session,
      level: level?.toLowerCase(),
      ...newestFirst(cursor),
    });
    return ordered(rows, cursor).map((row) => ({
      seq: row.seq,
      data: row,
      line: [
        color.dim(clock(row.ts)),
        paintLevel(row.level),
        color.dim(short(row.jobId)),
        color.dim(harmless(row.loggerName)),
        harmless(row.message),
        ...(row.excText === null ? [] : [`\n${harmless(row.excText)}`]),
      ].join(" "),
    }));
  };
}

function chunkSource(store: DiagnosticsReader, { session }: LogsOptions): Read {
  return async (cursor) => {
    const rows = await store.queryChunks({ workerSessionId: session, ...newestFirst(cursor) });
    return ordered(rows, cursor).map((row) => ({
      seq: row.seq,
      data: row,
      line: `${color.dim(clock(row.ts))} ${color.dim(row.stream)} ${harmless(row.content)}`,
    }));
  };
}

/** The newest entries are found from the end and shown from the beginning. */
function newestFirst(cursor: { readonly afterSeq?: number; readonly limit?: number }): {
  readonly descending: boolean;
  readonly afterSeq?: number;
  readonly limit?: number;
} {
  return { ...cursor, descending: cursor.limit !== undefined };
}

function ordered<T>(rows: readonly T[], { limit }: { readonly limit?: number }): readonly T[] {
  return limit === undefined ? rows : rows.toReversed();
}

/** A row as it is on disk; what is inside its payload is as it was recorded. */
function snakeKeys(row: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(row).map(([key, value]) => [
      key.replaceAll(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`),
      value,
    ]),
  );
}

function clock(ts: string): string {
  return harmless(ts).slice(0, 23).replace("T", " ");
}

function short(id: string | null): string {
  return harmless(id ?? "-")
    .slice(0, 8)
    .padEnd(8);
}

function paintLevel(level: string): string {
  const text = harmless(level).toUpperCase().padEnd(8);
  if (level === "error" || level === "critical") return color.red(text);
  return level === "warning" ? color.yellow(text) : text;
}

const PAYLOAD_COLUMNS = 160;

/** One line; the bulky snapshot of a terminal row collapses to its status. */
function compactPayload(payload: Readonly<Record<string, unknown>>): string {
  const { job_snapshot: snapshot, ...rest } = payload;
  const shown =
    snapshot === undefined
      ? rest
      : { ...rest, job_snapshot: isRecord(snapshot) ? snapshot["status"] : "…" };
  const text = JSON.stringify(shown);
  return text.length > PAYLOAD_COLUMNS ? `${text.slice(0, PAYLOAD_COLUMNS - 1)}…` : text;
}
