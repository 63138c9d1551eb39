import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe } from "vitest";
import { createCapability } from "../../../workers/inference/capability.ts";
import { PARAMETER_NAMES } from "../../../workers/inference/task/parameters.ts";
import { describeParameters } from "../../support/text-generation-contract.ts";
import { inProcess, type TextClient } from "../../support/text-generation.ts";
import { writeTinyAdapter, writeTinyModel } from "./tiny-model.ts";

let folder = "";
let client: TextClient;
let adapterPath = "";

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "cjm-inference-"));
  const model = await writeTinyModel(folder);
  adapterPath = await writeTinyAdapter(join(folder, "adapter"));
  client = inProcess(createCapability(), { data: join(folder, "data"), output: folder });
  await client.post("/initialize", { model, gpu: "none", threads: 1 });
});
afterAll(async () => {
  await client.post("/cleanup", {});
  rmSync(folder, { recursive: true, force: true });
});

describe("llama-cpp", () => {
  describeParameters({
    client: () => client,
    honours: () => new Set(PARAMETER_NAMES),
    adapterPath: () => adapterPath,
    prompt: "hello world, this is",
  });
});
