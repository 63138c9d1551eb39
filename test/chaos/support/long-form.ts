import { availableParallelism, loadavg } from "node:os";
import { type Part, PLAN } from "./plan.ts";

/** What `npm run chaos -- --minutes N --seed S` was asked for; the seed is printed by it. */
export const CHAOS_SEED = Number(process.env["CJM_CHAOS_SEED"] ?? Date.now() % 1_000_000);
const MINUTES = Number(process.env["CJM_CHAOS_MINUTES"] ?? 10);

/** The time that a part of the run has, in milliseconds. */
export function timeOf(part: Part): number {
  return MINUTES * 60_000 * PLAN[part].share;
}

/** A line of numbers for docs/trust.md. */
export function report(what: string, numbers: Readonly<Record<string, unknown>>): void {
  process.stdout.write(`chaos ${what}: ${JSON.stringify(numbers)}\n`);
}

/** The q-quantile of some milliseconds, rounded up. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return Math.ceil(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0);
}

/** False where others use the machine too: a time that was measured then says nothing about us. */
export function isMachineOurs(): boolean {
  return (loadavg()[0] ?? 0) < availableParallelism() * 2;
}
