import { color, harmless, print, printJson } from "./terminal.ts";

/** What both a host of our own and the door of another tell about a finished composition. */
export interface FinishedComposition {
  readonly id: string;
  readonly name: string | null;
  readonly status: string;
  readonly submittedAt: string;
  readonly completedAt: string | null;
  readonly nodes: readonly {
    readonly id: string;
    readonly state: string;
    readonly jobId: string | null;
    readonly error?: unknown;
  }[];
  readonly results: Readonly<Record<string, unknown>>;
}

/** One JSON document for programs. */
export function printCompositionJson(done: FinishedComposition): void {
  printJson({
    id: done.id,
    name: done.name,
    status: done.status,
    submitted_at: done.submittedAt,
    completed_at: done.completedAt,
    nodes: done.nodes.map(({ id, state, jobId, error }) => ({
      id,
      state,
      job_id: jobId,
      error: error ?? null,
    })),
    results: done.results,
  });
}

/** For people: every failure, then the results of the nodes that nothing else uses. */
export function printComposition(done: FinishedComposition, leaves: ReadonlySet<string>): void {
  for (const { id, error } of done.nodes) {
    const message = messageOf(error);
    if (message !== undefined) print(`${color.red("✗")} ${id}: ${harmless(message)}`);
  }
  for (const { id, state } of done.nodes) {
    if (state !== "completed" || !leaves.has(id)) continue;
    print(`\n${color.bold(id)}`);
    print(harmless(textOf(done.results[id])));
  }
  const paint = done.status === "completed" ? color.green : color.red;
  print(`\n${paint(done.status)}  ${color.dim(done.id)}`);
}

function messageOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("message" in error)) return undefined;
  const code = "code" in error ? ` (${String(error.code)})` : "";
  return `${String(error.message)}${code}`;
}

/** A program's output is shown as it is; anything else as JSON. */
function textOf(result: unknown): string {
  if (typeof result === "string") return result;
  const isOutput = typeof result === "object" && result !== null && "stdout" in result;
  if (isOutput && typeof result.stdout === "string" && result.stdout !== "") {
    return result.stdout.trimEnd();
  }
  return JSON.stringify(result, null, 2) ?? "";
}
