import { defineConfig } from "vitest/config";
import base from "../../vitest.config.ts";

/** `npm run test:chaos`: long, and busy for as long as it runs. */
export default defineConfig({
  ...base,
  test: {
    ...base.test,
    include: ["test/chaos/**/*.test.ts"],
    exclude: ["**/node_modules/**"],
    testTimeout: 1_800_000,
  },
});
