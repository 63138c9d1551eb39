/**
 * Loaded with `--import`: the package.json in a shipped worker's folder hides this package's
 * reference to itself, which an installed environment would have among its dependencies.
 */
import { registerHooks } from "node:module";

const WORKER = import.meta.resolve("cjm-substrate/worker");

registerHooks({
  resolve: (specifier, context, next) =>
    specifier === "cjm-substrate/worker"
      ? { url: WORKER, shortCircuit: true }
      : next(specifier, context),
});
