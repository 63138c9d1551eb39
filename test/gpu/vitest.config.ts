import { defineConfig } from "vitest/config";
import base from "../../vitest.config.ts";

/** `npx vitest run --config test/gpu/vitest.config.ts`, on a machine with a GPU. */
export default defineConfig({
  ...base,
  test: {
    ...base.test,
    include: ["test/gpu/**/*.test.ts"],
    exclude: ["**/node_modules/**"],
    testTimeout: 120_000,
  },
});
