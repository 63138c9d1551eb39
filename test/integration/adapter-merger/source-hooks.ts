import { registerHooks } from "node:module";

/** Lets a plain Node process run the worker from source: the SDK's public name means `src/`. */
const SDK = new URL("../../../src/worker/index.ts", import.meta.url).href;

registerHooks({
  resolve: (specifier, context, next) =>
    specifier === "cjm-substrate/worker"
      ? { url: SDK, format: "module-typescript", shortCircuit: true }
      : next(specifier, context),
});
