/**
 * Runs the long form of the fault tests.
 *
 *   npm run chaos -- [--minutes N] [--seed S] [vitest filter…]
 *
 * A part that is bounded by time gets N minutes (`CJM_CHAOS_MINUTES`), every random choice comes from
 * S (`CJM_CHAOS_SEED`), so that a run can be repeated.
 */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { describePlan } from "../test/chaos/support/plan.ts";

const { values, positionals } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
  },
  allowPositionals: true,
});
console.log(`chaos: ${values.minutes} minutes, seed ${values.seed}`);
console.log(describePlan(Number(values.minutes)));
const { status } = spawnSync(
  "vitest",
  ["run", "--config", "vitest.chaos.config.ts", ...positionals],
  {
    stdio: "inherit",
    env: { ...process.env, CJM_CHAOS_MINUTES: values.minutes, CJM_CHAOS_SEED: values.seed },
  },
);
process.exitCode = status ?? 1;
