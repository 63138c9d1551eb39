/**
 * Run by a test: the worker of an environment in which node-llama-cpp is not installed. Prints what a
 * generation with the model named by the first argument fails with.
 */
import { registerHooks } from "node:module";
import { tmpdir } from "node:os";
import "../../support/resolve-source.ts";

registerHooks({
  resolve(specifier, context, next) {
    if (specifier !== "node-llama-cpp") return next(specifier, context);
    throw Object.assign(new Error(`Cannot find package '${specifier}'`), {
      code: "ERR_MODULE_NOT_FOUND",
    });
  },
});

const { createCapability } = await import("../../../workers/inference/capability.ts");
const { errorOf, inProcess } = await import("../../support/text-generation.ts");
const folder = process.argv[2] ?? tmpdir();
const client = inProcess(createCapability(), { data: folder, output: folder });
await client.post("/initialize", { model: process.argv[3] });
const error = await errorOf(client.call("generate", { prompt: "hello" }));
const info = await client.call("model_info", {});
process.stdout.write(JSON.stringify({ error, info }));
