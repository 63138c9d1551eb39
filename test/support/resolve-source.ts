/**
 * Loaded with `--import`: a shipped worker run from source finds this package's source, although the
 * package.json in its own folder hides the package's reference to itself.
 */
import { registerHooks } from "node:module";

const WORKER = new URL("../../src/worker/index.ts", import.meta.url).href;

registerHooks({
  resolve: (specifier, context, next) =>
    specifier === "cjm-substrate/worker"
      ? { url: WORKER, shortCircuit: true }
      : next(specifier, context),
});
