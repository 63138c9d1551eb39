import { join } from "node:path";
import { CjmError } from "../../errors/index.ts";
import { explainComposition, explainJob, type Explanation, type Span } from "../../queue/index.ts";
import { openJournalReader } from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, duration, harmless, print, printJson, table } from "../terminal.ts";

export interface ExplainOptions extends GlobalOptions {
  readonly json?: boolean;
}

/** Where a job's or a composition's time went; works beside a live host and without one. */
export async function explainCommand(id: string, options: ExplainOptions): Promise<number> {
  const { dataDir } = await configOf(options);
  const explanation = await explanationOf(dataDir, id);
  if (options.json === true) printJson(toWire(explanation));
  else print(render(explanation));
  return EXIT.ok;
}

async function explanationOf(dataDir: string, id: string): Promise<Explanation> {
  await using store = await openJournalReader(join(dataDir, "journal.db"));
  const now = Date.now();
  const explained =
    explainComposition((await store?.queryJournal({ compositionId: id })) ?? [], now) ??
    explainJob((await store?.queryJournal({ jobId: id })) ?? [], now);
  if (explained !== null) return explained;
  throw new CjmError("JOB_UNKNOWN", `There is no job or composition ${id} in ${dataDir}`);
}

function render({ id, status, wholeMs, spans }: Explanation): string {
  const sums = Map.groupBy(spans, ({ kind }) => kind);
  const parts = [...sums].map(([kind, own]) => `${kind} ${duration(total(own))}`);
  const rows = spans.map(({ kind, what, fromMs, toMs, behindJobId }) => [
    duration(toMs - fromMs),
    kind,
    harmless(what),
    behindJobId === null ? "" : `behind ${behindJobId}`,
  ]);
  return `${color.bold(harmless(id))}  ${harmless(status)}  ${duration(wholeMs)} = ${parts.join(" + ")}\n${table(rows)}`;
}

function toWire({ id, status, wholeMs, spans }: Explanation): unknown {
  return {
    id,
    status,
    whole_ms: wholeMs,
    spans: spans.map(({ kind, what, fromMs, toMs, behindJobId }) => ({
      kind,
      what,
      from: new Date(fromMs).toISOString(),
      ms: toMs - fromMs,
      behind_job_id: behindJobId,
    })),
  };
}

function total(spans: readonly Span[]): number {
  return spans.reduce((sum, { fromMs, toMs }) => sum + toMs - fromMs, 0);
}
