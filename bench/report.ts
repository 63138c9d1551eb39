import { writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";

/** One number for each metric of a run. */
export type Numbers = Readonly<Record<string, number>>;

/** What a contender needs is not there: the command that failed says so, never a number. */
export class Absent extends Error {
  override readonly name = "Absent";
  readonly command: string;

  constructor(command: string, reason: string) {
    super(reason);
    this.command = command;
  }
}

interface Statistic {
  readonly median: number;
  /** Lowest and highest of all rounds. */
  readonly spread: readonly [number, number];
  readonly rounds: number;
}

export interface Comparison {
  readonly row: string;
  readonly rounds: number;
  /** Metric to whether more or less of it is better. */
  readonly metrics: Readonly<Record<string, "more" | "less">>;
  /** Contender to metric to the share that the first contender must reach of it. */
  readonly goals?: Readonly<Record<string, Numbers>>;
}

interface MissingContender {
  readonly contender: string;
  readonly command: string;
  readonly reason: string;
}

interface ResultRow {
  readonly row: string;
  readonly metric: string;
  readonly numbers: Readonly<Record<string, Statistic>>;
  /** How well the first contender does beside each other one, median of the rounds: 1 is as well. */
  readonly ratios: Numbers;
  readonly goals: Numbers;
}

/**
 * The results of one benchmark: printed as they come, and written as JSON to `CJM_BENCH_OUT` at the
 * end. Contenders run in turn, round by round, so that a busy machine slows all of them alike; a ratio
 * is taken within a round.
 */
export class Report {
  readonly #rows: ResultRow[] = [];
  readonly #absent: MissingContender[] = [];
  readonly #notes: Record<string, unknown> = {};
  readonly #loadBefore = loadavg();

  /** The first contender is ours; each gives the numbers of one run. */
  async compare(
    { row, rounds, metrics, goals = {} }: Comparison,
    contenders: Readonly<Record<string, () => Promise<Numbers>>>,
  ): Promise<void> {
    const runs = new Map<string, Numbers[]>();
    const missing = new Set<string>();
    for (let round = 0; round < rounds; round += 1) {
      const order = Object.entries(contenders);
      for (const [name, run] of round % 2 === 0 ? order : order.toReversed()) {
        if (missing.has(name)) continue;
        const numbers = await this.#attempt(row, name, run);
        if (numbers === undefined) missing.add(name);
        else runs.set(name, [...(runs.get(name) ?? []), numbers]);
      }
    }
    for (const [metric, better] of Object.entries(metrics)) {
      this.#add({ row, metric, better, goals }, Object.keys(contenders), runs);
    }
  }

  /** Something worth keeping that is no comparison. */
  note(name: string, value: unknown): void {
    this.#notes[name] = value;
    console.log(`${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  }

  /** Writes the JSON, where one is asked for. */
  [Symbol.dispose](): void {
    const path = process.env["CJM_BENCH_OUT"];
    if (path === undefined) return;
    const machine = {
      cpu: cpus()[0]?.model ?? "unknown",
      cores: cpus().length,
      node: process.versions.node,
      load_before: this.#loadBefore,
      load_after: loadavg(),
    };
    const content = {
      date: new Date().toISOString(),
      machine,
      rows: this.#rows,
      absent: this.#absent,
      notes: this.#notes,
    };
    writeFileSync(path, `${JSON.stringify(content, null, 2)}\n`);
  }

  /** Undefined where the contender cannot be had. */
  async #attempt(
    row: string,
    contender: string,
    run: () => Promise<Numbers>,
  ): Promise<Numbers | undefined> {
    try {
      return await run();
    } catch (error) {
      if (!(error instanceof Absent)) throw error;
      const { command, message: reason } = error;
      this.#absent.push({ contender, command, reason });
      console.log(`${row}: no ${contender}: \`${command}\`: ${reason}`);
      return undefined;
    }
  }

  #add(
    {
      row,
      metric,
      better,
      goals,
    }: { row: string; metric: string; better: "more" | "less" } & Required<
      Pick<Comparison, "goals">
    >,
    names: readonly string[],
    runs: ReadonlyMap<string, readonly Numbers[]>,
  ): void {
    const valuesOf = (name: string): number[] =>
      (runs.get(name) ?? []).flatMap((numbers) => numbers[metric] ?? []);
    const [first = "", ...others] = names;
    const ours = valuesOf(first);
    const numbers: Record<string, Statistic> = {};
    const ratios: Record<string, number> = {};
    const wanted: Record<string, number> = {};
    for (const name of names) {
      const values = valuesOf(name);
      if (values.length > 0) numbers[name] = statistic(values);
    }
    for (const name of others) {
      const theirs = valuesOf(name);
      if (theirs.length === 0) continue;
      ratios[name] = median(
        theirs.map((value, round) =>
          better === "more" ? (ours[round] ?? Number.NaN) / value : value / (ours[round] ?? 0),
        ),
      );
      const goal = goals[name]?.[metric];
      if (goal !== undefined) wanted[name] = goal;
    }
    const result = { row, metric, numbers, ratios, goals: wanted };
    this.#rows.push(result);
    console.log(lineOf(result));
  }
}

/** Seconds on the clock, and of processor time: the latter counts on a machine in use. */
export interface Cost {
  readonly seconds: number;
  readonly cpu: number;
}

export async function costOf(work: () => Promise<unknown> | void): Promise<Cost> {
  const before = process.cpuUsage();
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1_000;
  const { user, system } = process.cpuUsage(before);
  return { seconds, cpu: (user + system) / 1e6 };
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

function statistic(values: readonly number[]): Statistic {
  return {
    median: median(values),
    spread: [Math.min(...values), Math.max(...values)],
    rounds: values.length,
  };
}

function lineOf({ row, metric, numbers, ratios, goals }: ResultRow): string {
  const cells = Object.entries(numbers).map(([name, { median: value, spread }]) => {
    const ratio = ratios[name];
    const goal = goals[name];
    const beside = ratio === undefined ? "" : `, ratio ${ratio.toFixed(2)}`;
    const verdict =
      goal === undefined ? "" : ` (goal ${goal}${(ratio ?? 0) < goal ? ": missed" : ""})`;
    return `${name} ${short(value)} [${spread.map(short).join("–")}]${beside}${verdict}`;
  });
  return `${row.padEnd(16)} ${metric.padEnd(14)} ${cells.join("  |  ")}`;
}

function short(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
