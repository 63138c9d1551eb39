import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { identify, isAlive, processTree } from "../../src/process/index.ts";
import type { JournalEvent } from "../../src/store/index.ts";
import { dataDir, INSTALL_MS } from "../ml/support/environment.ts";
import { FACTORY, prepareFactory, someTasks } from "../ml/support/factory.ts";
import { runCli, startCli } from "../support/cli.ts";
import { journalOf, terminalJobs } from "../support/crash-oracle.ts";
import { CHAOS_SEED, report, timeOf } from "./support/long-form.ts";
import { below, pick, randomFrom } from "./support/random.ts";

/** Enough that a training is interrupted between checkpoints, of which there is one each 20 steps. */
const STEPS = 60;
const TASKS = 3;
const MAX_KILLS = 3;
const TRAININGS = ["numbers", "lists"];

const file = z.object({ name: z.string(), sha256: z.string() });
const madeSchema = z.object({ adapter: z.object({ data: z.object({ files: z.array(file) }) }) });
const scores = z.object({ candidates: z.array(z.looseObject({ id: z.string() })) });
const doneSchema = z.object({
  status: z.literal("completed"),
  results: z.object({
    numbers: madeSchema,
    lists: madeSchema,
    merge: z.array(madeSchema),
    scores,
    "test-scores": scores,
    promoted: z.array(z.object({ record: z.object({ method: z.string() }) })),
  }),
});
type Done = z.output<typeof doneSchema>;

let inputs: readonly string[] = [];

beforeAll(async () => {
  const values = {
    model: await prepareFactory(),
    steps: STEPS,
    samples: 1,
    learning_rate: 0.003,
    // Nothing is drawn: which calls share a batch differs from life to life.
    temperature: 0,
    validation: await someTasks("validation", TASKS),
    test: await someTasks("test", TASKS),
  };
  inputs = Object.entries(values).flatMap(([name, value]) => ["--set", `${name}=${value}`]);
}, INSTALL_MS);

/** A data directory of its own, with the environments of the shared one. */
async function newFactory(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-factory-"));
  await cp(join(dataDir, "manifests"), join(folder, "manifests"), { recursive: true });
  return folder;
}

interface Life {
  /** Undefined if it was killed. */
  readonly printed: unknown;
  /** Descendants of the killed host that lived on. */
  readonly orphans: readonly number[];
}

/** A moment: so long after the first thing that is journaled of a node in this life. */
interface Kill {
  readonly node: string;
  /** Not the first thing, but the first of these. */
  readonly event?: string;
  readonly afterMs: number;
}

/** One life of the host: it begins the factory, or goes on with it, until its end or its death. */
async function live(folder: string, kill?: Kill): Promise<Life> {
  const { length: known, isBegun } = await begunAt(folder);
  const command = isBegun ? ["resume"] : ["run", join(FACTORY, "composition.yaml"), ...inputs];
  const host = startCli([...command, "--json"], { dataDir: folder });
  const over = new AbortController();
  let family: ReturnType<typeof identify>[] = [];
  const killing = (async () => {
    if (kill === undefined || !(await begins(folder, { kill, known }, over.signal))) return;
    await pause(kill.afterMs, undefined, { signal: over.signal }).catch(() => {});
    if (over.signal.aborted) return;
    family = processTree(host.pid ?? 0).map((pid) => identify(pid));
    host.kill("SIGKILL");
  })();
  const { exitCode, signal, stdout, stderr } = await host;
  over.abort();
  await killing;
  if (signal === undefined) {
    expect(exitCode, stderr).toBe(0);
    return { printed: JSON.parse(stdout), orphans: [] };
  }
  const alive = (): number[] =>
    family.flatMap((one) => (one !== undefined && isAlive(one) ? [one.pid] : []));
  for (let waited = 0; alive().length > 0 && waited < 200; waited += 1) await pause(50);
  return { printed: undefined, orphans: alive() };
}

async function begunAt(folder: string): Promise<{ length: number; isBegun: boolean }> {
  const rows = await journalOf(folder).catch(() => []);
  const isBegun = rows.some(({ eventType }) => eventType === "composition_submitted");
  return { length: rows.length, isBegun };
}

/** Waits for a row about a node behind those that are known; false where the host ends before. */
async function begins(
  folder: string,
  { kill: { node, event }, known }: { readonly kill: Kill; readonly known: number },
  over: AbortSignal,
): Promise<boolean> {
  while (!over.aborted) {
    const rows = await journalOf(folder).catch(() => []);
    const isIt = ({ nodeId, eventType }: JournalEvent): boolean =>
      nodeId === node && (event === undefined || eventType === event);
    if (rows.slice(known).some(isIt)) return true;
    await pause(100);
  }
  return false;
}

/** How long each node takes, and how much is journaled about it. */
function phasesOf(rows: readonly JournalEvent[]): Map<string, { ms: number; rows: number }> {
  const phases = new Map<string, { ms: number; rows: number }>();
  for (const [node, own] of Map.groupBy(rows, ({ nodeId }) => nodeId ?? "")) {
    const times = own.map(({ ts }) => Date.parse(ts));
    const ms = Math.max(...times) - Math.min(...times);
    if (node !== "") phases.set(node, { ms, rows: own.length });
  }
  return phases;
}

/**
 * What must be the same however often the host was killed. Beside its weights an adapter has a card
 * that says how long it took, and its id is the hash of all.
 */
function comparable({ results }: Done): unknown {
  const { numbers, lists, merge, promoted, scores: chosenBy, "test-scores": tested } = results;
  return {
    weights: [numbers, lists, ...merge].map(({ adapter }) =>
      adapter.data.files.find(({ name }) => name === "adapter_model.safetensors"),
    ),
    scores: [chosenBy, tested].map(({ candidates }) =>
      candidates.map((one) => ({ ...one, id: "" })),
    ),
    promoted: promoted.map(({ record }) => record.method),
  };
}

/** The result; a host that died after its last commit left it in the journal and the cache. */
async function resultOf(folder: string, printed: unknown): Promise<Done> {
  const done = doneSchema.safeParse(printed);
  if (done.success) return done.data;
  const again = await runCli(["run", join(FACTORY, "composition.yaml"), "--json", ...inputs], {
    dataDir: folder,
  });
  return doneSchema.parse(JSON.parse(again.stdout));
}

/** What is wrong with the trainings and the ends of jobs that a journal tells of. */
function problemsOf(rows: readonly JournalEvent[]): string[] {
  const ended = terminalJobs(rows);
  const submitted = rows.flatMap(({ eventType, jobId }) =>
    eventType === "job_submitted" && jobId !== null ? [jobId] : [],
  );
  return [
    ...(new Set(ended).size === ended.length ? [] : ["a job has two terminal rows"]),
    ...submitted.filter((id) => !ended.includes(id)).map((id) => `job ${id} has no terminal row`),
    ...TRAININGS.flatMap((node) => trainingProblems(node, rows)),
  ];
}

function trainingProblems(node: string, rows: readonly JournalEvent[]): string[] {
  const own = rows.filter(({ nodeId }) => nodeId === node);
  const problems: string[] = [];
  let [checkpoint, trainings, isOver] = [0, 0, false];
  for (const { eventType, payload } of own) {
    if (eventType === "job_submitted") trainings += 1;
    if (eventType === "checkpoint_saved") checkpoint = Number(payload["step"]);
    if (eventType === "state_transition" && payload["to"] === "completed") isOver = true;
    if (eventType !== "training_started") continue;
    if (isOver) problems.push(`${node} was trained and is trained again`);
    if (Number(payload["from_step"]) < checkpoint) {
      problems.push(`${node} goes on at ${String(payload["from_step"])}, not at ${checkpoint}`);
    }
  }
  if (trainings !== 1) problems.push(`${node} was given to the trainer ${trainings} times`);
  return problems;
}

/** A random moment of a random node that is not over yet; half of the time behind a checkpoint. */
async function nextKill(
  folder: string,
  phases: ReadonlyMap<string, { readonly ms: number; readonly rows: number }>,
  random: () => number,
): Promise<Kill> {
  const seen = phasesOf(await journalOf(folder).catch(() => []));
  const left = [...phases].filter(([node, { rows }]) => (seen.get(node)?.rows ?? 0) < rows);
  const trainings = left.filter(([node]) => TRAININGS.includes(node));
  if (random() < 0.5 && trainings.length > 0) {
    const [node] = pick(random, trainings);
    return { node, event: "checkpoint_saved", afterMs: Math.round(random() * 2_000) };
  }
  const [node, { ms }] = pick(random, left);
  return { node, afterMs: Math.round(random() * ms) };
}

test(
  `a factory whose host is killed at random moments ends as if it had not been, seed ${CHAOS_SEED}`,
  { timeout: 3_600_000 },
  async () => {
    const random = randomFrom(CHAOS_SEED);
    const endsAt = performance.now() + timeOf("model-factory");
    const whole = await newFactory();
    const expected = comparable(doneSchema.parse((await live(whole)).printed));
    const undisturbed = await journalOf(whole);
    expect(problemsOf(undisturbed)).toEqual([]);
    const phases = phasesOf(undisturbed);
    await rm(whole, { recursive: true, force: true });

    const wrong: string[] = [];
    let [runs, kills, resumedTrainings] = [0, 0, 0];
    do {
      const folder = await newFactory();
      const moments: string[] = [];
      let life: Life = { printed: undefined, orphans: [] };
      for (let left = 1 + below(random, MAX_KILLS); left >= 0 && life.printed === undefined;) {
        const kill = left === 0 ? undefined : await nextKill(folder, phases, random);
        life = await live(folder, kill);
        if (life.printed === undefined) moments.push(`${kill?.node} + ${kill?.afterMs} ms`);
        wrong.push(...life.orphans.map((pid) => `${pid} lives on`));
        left -= 1;
      }
      const rows = await journalOf(folder);
      const found = problemsOf(rows);
      const result = comparable(await resultOf(folder, life.printed));
      if (JSON.stringify(result) !== JSON.stringify(expected)) found.push("another result");
      wrong.push(...found.map((problem) => `killed at ${moments.join(", ")}: ${problem}`));
      runs += 1;
      kills += moments.length;
      resumedTrainings += rows.filter(
        ({ eventType, payload }) =>
          eventType === "training_started" && Number(payload["from_step"]) > 0,
      ).length;
      await rm(folder, { recursive: true, force: true });
    } while (performance.now() < endsAt);
    report("factory kills", { runs, kills, resumedTrainings });
    expect(wrong).toEqual([]);
  },
);
