import { join } from "node:path";
import { dependencies } from "../../composition/index.ts";
import { hostPackage } from "../../config/package-root.ts";
import { CjmError } from "../../errors/index.ts";
import {
  explainComposition,
  explainJob,
  storedComposition,
  storedView,
} from "../../queue/index.ts";
import {
  type CompositionRecord,
  DiagnosticsReader,
  type JobRecord,
  type JournalEvent,
  type NodeRecord,
  openJournalReader,
  RESOURCES_LOGGER,
  ResultFiles,
  type StoreReads,
  WHOLE_NODE,
} from "../../store/index.ts";
import { isRecord } from "../../util/record.ts";
import { findEvaluations, findLosses } from "./findings.ts";
import type { ReportDecision, ReportJob, ReportModel, ReportNode, ReportSample } from "./model.ts";

const MAX_RESULT_CHARACTERS = 20_000;
/** Twice a second for half a day. */
const MAX_SAMPLES = 100_000;

/**
 * Everything a report on a composition shows, read beside a live host or without one.
 *
 * @param id of the composition; undefined: the newest one.
 * @throws {CjmError} `JOB_UNKNOWN`.
 */
export async function gatherReport(dataDir: string, id: string | undefined): Promise<ReportModel> {
  await using store = await openJournalReader(join(dataDir, "journal.db"));
  const record = store === undefined ? undefined : await recordOf(store, id);
  if (store === undefined || record === undefined) {
    const what = id === undefined ? "no composition" : `no composition ${id}`;
    throw new CjmError("JOB_UNKNOWN", `There is ${what} in ${dataDir}`);
  }
  return await modelOf(record, { store, dataDir });
}

async function recordOf(
  store: StoreReads,
  id: string | undefined,
): Promise<CompositionRecord | undefined> {
  if (id !== undefined) return await store.getComposition(id);
  const [newest] = await store.listCompositions({ descending: true, limit: 1 });
  return newest;
}

async function modelOf(
  record: CompositionRecord,
  { store, dataDir }: { readonly store: StoreReads; readonly dataDir: string },
): Promise<ReportModel> {
  const results = new ResultFiles(dataDir);
  const view = await storedView(record.id, { store, results });
  const journal = await store.queryJournal({ compositionId: record.id });
  const startMs = Date.parse(record.submittedAt);
  const endMs = record.completedAt === null ? Date.now() : Date.parse(record.completedAt);
  const spec = storedComposition(record);
  const used = new Set(spec.nodes.flatMap((node) => [...dependencies(node).all]));
  const found = view?.results ?? {};
  return {
    id: record.id,
    name: record.name ?? "composition",
    status: record.status,
    startMs,
    endMs,
    nodes: await nodesOf(record.id, spec.nodes, store),
    jobs: jobsOf(await store.listJobs({ compositionId: record.id }), journal, endMs),
    time: explainComposition(journal, endMs)?.spans ?? [],
    samples: await samplesOf(dataDir, startMs, endMs),
    losses: await findLosses(found, journal),
    evaluations: findEvaluations(found),
    decisions: journal.flatMap(decisionOf),
    results: Object.entries(found).flatMap(([node, result]) =>
      used.has(node) ? [] : [{ node, text: textOf(result) }],
    ),
    madeBy: `cjm-substrate ${hostPackage().version}`,
  };
}

type Spec = ReturnType<typeof storedComposition>["nodes"];

async function nodesOf(id: string, spec: Spec, store: StoreReads): Promise<ReportNode[]> {
  const rows = Map.groupBy(await store.nodeRuns(id), ({ nodeId }) => nodeId);
  return spec.map((node) => {
    const own = rows.get(node.id) ?? [];
    const whole = own.find(({ itemIndex }) => itemIndex === WHOLE_NODE);
    const items = own.filter(({ itemIndex }) => itemIndex !== WHOLE_NODE);
    return {
      id: node.id,
      instance: node.instance,
      action: node.action ?? node.method ?? "",
      state: whole?.state ?? "pending",
      needs: [...dependencies(node).all],
      items: node.forEach === undefined ? null : countStates(items),
      error: [whole, ...items].find((row) => row?.error != null)?.error?.message ?? null,
      isCached: [whole, ...items].some((row) => row?.provenance.cacheKey !== undefined),
    };
  });
}

function countStates(items: readonly NodeRecord[]): Record<string, number> {
  const counts = [...Map.groupBy(items, ({ state }) => state)];
  return Object.fromEntries(counts.map(([state, own]) => [state, own.length]));
}

function jobsOf(
  jobs: readonly JobRecord[],
  journal: readonly JournalEvent[],
  endMs: number,
): ReportJob[] {
  const rows = Map.groupBy(journal, ({ jobId }) => jobId);
  return jobs.map((job) => ({
    id: job.id,
    node: job.nodeId ?? "",
    item: job.itemIndex,
    instance: job.capabilityInstanceId,
    status: job.status,
    spans: explainJob(rows.get(job.id) ?? [], endMs)?.spans ?? [],
  }));
}

async function samplesOf(dataDir: string, startMs: number, endMs: number): Promise<ReportSample[]> {
  await using reader = DiagnosticsReader.open(join(dataDir, "diagnostics.db"));
  const records = await reader?.queryRecords({
    loggerName: RESOURCES_LOGGER,
    sinceTs: new Date(startMs).toISOString(),
    untilTs: new Date(endMs).toISOString(),
    limit: MAX_SAMPLES,
  });
  return (records ?? []).flatMap(({ ts, message }) => {
    const sample: unknown = JSON.parse(message);
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by this host's resource-samples.ts
    return isRecord(sample) ? [{ ...sample, atMs: Date.parse(ts) } as unknown as ReportSample] : [];
  });
}

/** Rows in which a worker says what it decided and why. */
function decisionOf({ ts, nodeId, eventType, payload }: JournalEvent): ReportDecision[] {
  const of = (key: string): string => (typeof payload[key] === "string" ? payload[key] : "");
  const about = { ts, node: nodeId ?? "", reason: of("reason"), evidence: payload["evidence"] };
  if (eventType === "evolution_decision") {
    return [{ ...about, kind: of("decision").replace("_", " "), subject: of("subject") }];
  }
  if (!eventType.startsWith("adapter_") || eventType === "adapter_bound") return [];
  return [{ ...about, kind: eventType.slice("adapter_".length), subject: of("id") }];
}

/** A program's output as it is, anything else as JSON. */
function textOf(result: unknown): string {
  const isOutput = isRecord(result) && typeof result["stdout"] === "string";
  const text = isOutput ? String(result["stdout"]) : (JSON.stringify(result, null, 2) ?? "");
  if (text.length <= MAX_RESULT_CHARACTERS) return text;
  return `${text.slice(0, MAX_RESULT_CHARACTERS)}\n… (${text.length} characters in all)`;
}
