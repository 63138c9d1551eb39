import type { QueueEvent } from "../queue/index.ts";
import { color, duration, fit, harmless, isInteractive, print, width } from "./terminal.ts";

interface Line {
  readonly id: string;
  state: string;
  message: string;
  startedMs: number | null;
  endedMs: number | null;
  /** Items of a `for_each` node that have ended, and all there are. */
  items: { ended: number; total: number } | null;
}

const MARKS: Readonly<Record<string, string>> = {
  pending: color.dim("·"),
  running: color.cyan("●"),
  completed: color.green("✓"),
  failed: color.red("✗"),
  cancelled: color.yellow("-"),
  skipped: color.dim("-"),
};
const FRAME_MS = 100;

/** Shows a composition while it runs: redrawn on a terminal, a line for each change in a pipe. */
export class RunView implements Disposable {
  readonly #lines = new Map<string, Line>();
  readonly #isLive: boolean;
  readonly #started = performance.now();
  #drawn = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(nodeIds: readonly string[], isQuiet: boolean) {
    for (const id of nodeIds) this.#lines.set(id, newLine(id));
    this.#isLive = !isQuiet && isInteractive();
    if (this.#isLive) {
      this.#timer = setInterval(() => {
        this.#draw();
      }, FRAME_MS);
    }
    this.#isQuiet = isQuiet;
  }

  readonly #isQuiet: boolean;

  show(event: QueueEvent): void {
    const line = this.#lines.get(event.nodeId ?? "");
    if (line === undefined) return;
    const before = line.state;
    apply(line, event);
    if (this.#isLive || this.#isQuiet || line.state === before) return;
    print(this.#text(line, 1_000));
  }

  /** Draws the last picture; what comes after it is below. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    if (this.#isLive) this.#draw();
  }

  #draw(): void {
    const columns = width();
    const rows = Math.max(4, (process.stdout.rows ?? 24) - 2);
    const lines = this.#visible(rows).map((line) => this.#text(line, columns));
    const summary = this.#summary();
    const up = this.#drawn > 0 ? `\u001b[${this.#drawn}A\u001b[J` : "";
    process.stdout.write(`${up}${[...lines, fit(summary, columns)].join("\n")}\n`);
    this.#drawn = lines.length + 1;
  }

  /** What does not fit: nodes that are over make room for those that run. */
  #visible(rows: number): Line[] {
    const all = [...this.#lines.values()];
    if (all.length <= rows) return all;
    const live = all.filter(({ state }) => state === "running" || state === "failed");
    return [...live, ...all.filter((line) => !live.includes(line)).toReversed()].slice(0, rows);
  }

  #summary(): string {
    const counts = Map.groupBy(this.#lines.values(), ({ state }) => state);
    const parts = [...counts].map(([state, lines]) => `${lines.length} ${state}`);
    return color.dim(`${duration(performance.now() - this.#started)}  ${parts.join(", ")}`);
  }

  #text(line: Line, columns: number): string {
    const mark = MARKS[line.state] ?? "?";
    const isTimed = line.startedMs !== null && (this.#isLive || line.endedMs !== null);
    const time = isTimed
      ? duration((line.endedMs ?? performance.now()) - (line.startedMs ?? 0))
      : "";
    const items = line.items === null ? "" : ` ${line.items.ended}/${line.items.total}`;
    const note = line.message === "" ? "" : `  ${harmless(line.message)}`;
    return fit(`${mark} ${line.id}${items}  ${line.state} ${time}${note}`.trimEnd(), columns);
  }
}

function newLine(id: string): Line {
  return { id, state: "pending", message: "", startedMs: null, endedMs: null, items: null };
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

const ENDED = new Set(["completed", "failed", "cancelled"]);

function apply(line: Line, { type, payload }: QueueEvent): void {
  if (type === "job_submitted" && typeof payload["item_index"] === "number") {
    line.items ??= { ended: 0, total: 0 };
    line.items.total += 1;
  } else if (type === "progress_changed") {
    line.message = text(payload["status_message"]);
  } else if (type === "block_reason_changed") {
    line.message = text(payload["to"]);
  } else if (type === "retry_started") {
    line.message = `retry after ${text(payload["exception_category"])} error`;
  } else if (type === "state_transition") {
    transition(line, text(payload["to"]));
  }
}

function transition(line: Line, to: string): void {
  if (line.items !== null && ENDED.has(to)) {
    line.items.ended += 1;
    if (line.items.ended < line.items.total && to !== "failed") return;
  }
  line.state = harmless(to);
  line.message = "";
  if (to === "running") line.startedMs ??= performance.now();
  if (ENDED.has(to)) line.endedMs = performance.now();
}
