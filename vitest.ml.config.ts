import { defineConfig, mergeConfig } from "vitest/config";
import base from "./vitest.config.ts";

/** Tests that need a Python environment with torch; `scripts/ml-environment.ts` makes it. */
export default mergeConfig(
  { ...base, test: { ...base.test, include: [], exclude: [] } },
  defineConfig({
    test: {
      include: ["test/ml/**/*.test.ts"],
      testTimeout: 300_000,
      hookTimeout: 300_000,
      maxWorkers: 1,
    },
  }),
);
