import { defineConfig, mergeConfig } from "vitest/config";
import base from "./vitest.config.ts";

/** The long form of the fault tests: `npm run chaos -- --minutes N --seed S`. */
export default mergeConfig(
  { ...base, test: { ...base.test, include: [], exclude: [] } },
  defineConfig({
    test: {
      include: ["test/chaos/**/*.test.ts"],
      testTimeout: 0,
      hookTimeout: 300_000,
      maxWorkers: 1,
    },
  }),
);
