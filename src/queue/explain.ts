import type { JournalEvent } from "../store/index.ts";
import { isRecord } from "../util/record.ts";

/** `lost`: it ran, and its host stopped before it was over. */
export type SpanKind = "waiting" | "loading" | "running" | "lost";

/** A stretch of a life, in milliseconds since 1970. */
export interface Span {
  readonly kind: SpanKind;
  /** For what it waited, or which attempt it was. */
  readonly what: string;
  readonly fromMs: number;
  readonly toMs: number;
  /** The job that was in the way, where one was. */
  readonly behindJobId: string | null;
}

/** Where a job's or a composition's time went; the spans meet end to end, so they sum to the whole. */
export interface Explanation {
  readonly id: string;
  /** `running` for a composition that is not over. */
  readonly status: string;
  readonly wholeMs: number;
  readonly spans: readonly Span[];
}

const OVER = new Set(["completed", "failed", "cancelled"]);
const ITS_TURN = "its turn among the jobs of its class";

interface Open {
  readonly kind: SpanKind;
  readonly what: string;
  readonly fromMs: number;
  readonly behindJobId: string | null;
}

/**
 * The life of one job, from its journal rows in order of `seq`.
 *
 * @param nowMs where the life of a job that is not over ends for now.
 */
export function explainJob(rows: readonly JournalEvent[], nowMs: number): Explanation | null {
  const first = rows.find(({ eventType }) => eventType === "job_submitted");
  if (first === undefined) return null;
  const life = new JobLife(at(first));
  for (const row of rows) life.take(row);
  life.close(nowMs);
  const wholeMs = (life.spans.at(-1)?.toMs ?? at(first)) - at(first);
  return { id: first.jobId ?? "", status: life.status, wholeMs, spans: life.spans };
}

class JobLife {
  readonly spans: Span[] = [];
  status = "pending";
  #open: Open | null;
  #attempt = 0;
  #loadMs = 0;

  constructor(fromMs: number) {
    this.#open = { kind: "waiting", what: ITS_TURN, fromMs, behindJobId: null };
  }

  take(row: JournalEvent): void {
    const { eventType, payload } = row;
    if (eventType === "block_reason_changed") {
      this.#go(at(row), {
        kind: "waiting",
        what: text(payload["to"]),
        behindJobId: blocker(payload),
      });
    } else if (eventType === "retry_started") {
      this.#loadMs = number(payload["load_ms"]);
    } else if (eventType === "state_transition") {
      this.#transition(row);
    }
  }

  close(nowMs: number): void {
    if (this.#open !== null) this.#end(nowMs);
  }

  #transition(row: JournalEvent): void {
    const { payload } = row;
    const to = text(payload["to"]);
    this.status = to;
    if (to === "running") {
      this.#attempt += 1;
      this.#go(at(row), { kind: "running", what: `attempt ${this.#attempt}`, behindJobId: null });
    } else if (to === "pending") {
      const isResumed = payload["resumed"] === true;
      if (isResumed && this.#open !== null) this.#open = { ...this.#open, kind: "lost" };
      const what = isResumed ? ITS_TURN : `the delay before attempt ${this.#attempt + 1}`;
      this.#go(at(row), { kind: "waiting", what, behindJobId: null });
    } else if (OVER.has(to)) {
      const snapshot = payload["job_snapshot"];
      this.#loadMs = isRecord(snapshot) ? number(snapshot["load_ms"]) : 0;
      this.#end(at(row));
      this.#open = null;
    }
  }

  #go(nowMs: number, next: Omit<Open, "fromMs">): void {
    this.#end(nowMs);
    this.#open = { ...next, fromMs: nowMs };
  }

  /** Ends the open span; of an attempt the time its instance took to be ready is told apart. */
  #end(toMs: number): void {
    if (this.#open === null) return;
    const open = this.#open;
    const loadedMs =
      open.kind === "running"
        ? Math.min(toMs, open.fromMs + Math.round(this.#loadMs))
        : open.fromMs;
    if (loadedMs > open.fromMs) {
      this.spans.push({ ...open, kind: "loading", toMs: loadedMs });
    }
    if (toMs > loadedMs) this.spans.push({ ...open, fromMs: loadedMs, toMs });
    this.#loadMs = 0;
  }
}

/**
 * The life of a composition, from the journal rows of it and its members: at each moment it runs if
 * a member does, else it loads if one does, else it waits for what its first member waits for.
 */
export function explainComposition(
  rows: readonly JournalEvent[],
  nowMs: number,
): Explanation | null {
  const first = rows.find(({ eventType }) => eventType === "composition_submitted");
  if (first === undefined) return null;
  const last = rows.find(
    ({ eventType, jobId, payload }) =>
      eventType === "state_transition" && jobId === null && OVER.has(text(payload["to"])),
  );
  const toMs = last === undefined ? nowMs : at(last);
  const byJob = Map.groupBy(rows, ({ jobId }) => jobId);
  const members = [...byJob].flatMap(([jobId, own]) =>
    jobId === null ? [] : [{ node: own[0]?.nodeId ?? jobId, life: explainJob(own, nowMs) }],
  );
  const spans = members.flatMap(({ node, life }) =>
    (life?.spans ?? []).map((span) => ({ ...span, what: `${node}: ${span.what}` })),
  );
  return {
    id: first.compositionId ?? "",
    status: last === undefined ? "running" : text(last.payload["to"]),
    wholeMs: toMs - at(first),
    spans: sweep(spans, at(first), toMs),
  };
}

const RANK: Readonly<Record<SpanKind, number>> = { running: 3, loading: 2, lost: 1, waiting: 0 };
const BETWEEN = "what runs next to be decided and written";

/** One span at a time: the one that matters most, the earliest of equals. */
function sweep(spans: readonly Span[], fromMs: number, toMs: number): Span[] {
  const edges = new Set([fromMs, toMs, ...spans.flatMap((span) => [span.fromMs, span.toMs])]);
  const times = [...edges].filter((ms) => ms >= fromMs && ms <= toMs).toSorted((a, b) => a - b);
  const starts = spans.toSorted((a, b) => a.fromMs - b.fromMs);
  const open = new Set<Span>();
  const told: Span[] = [];
  let next = 0;
  for (const [index, start] of times.slice(0, -1).entries()) {
    for (; (starts[next]?.fromMs ?? Infinity) <= start; next += 1) {
      const opened = starts[next];
      if (opened !== undefined) open.add(opened);
    }
    for (const span of open) if (span.toMs <= start) open.delete(span);
    const now = [...open].toSorted((a, b) => RANK[b.kind] - RANK[a.kind] || a.fromMs - b.fromMs)[0];
    append(told, now, start, times[index + 1] ?? toMs);
  }
  return told;
}

function append(told: Span[], span: Span | undefined, fromMs: number, toMs: number): void {
  const { kind, what, behindJobId } = span ?? {
    kind: "waiting" as const,
    what: BETWEEN,
    behindJobId: null,
  };
  const last = told.at(-1);
  if (last?.kind === kind && last.what === what) told[told.length - 1] = { ...last, toMs };
  else told.push({ kind, what, fromMs, toMs, behindJobId });
}

function at({ ts }: JournalEvent): number {
  return Date.parse(ts);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function number(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function blocker({ reason }: JournalEvent["payload"]): string | null {
  const behind = isRecord(reason) ? reason["behindJobId"] : undefined;
  return typeof behind === "string" ? behind : null;
}
