import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  // A worker folder has a package.json of its own, so the package's self-reference does not reach it.
  resolve: {
    alias: [
      { find: /^cjm-substrate$/u, replacement: source("./src/index.ts") },
      { find: /^cjm-substrate\/worker$/u, replacement: source("./src/worker/index.ts") },
    ],
  },
  ssr: { resolve: { conditions: ["@cjm/source", "node", "import", "default"] } },
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/gpu/**", "test/chaos/**", "test/ml/**", "**/node_modules/**"],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    maxWorkers: 2,
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts"],
      thresholds: { lines: 85, "src/{scheduler,composition,queue}/**": { lines: 95 } },
    },
  },
});
