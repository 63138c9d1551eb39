import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createCapability } from "../../../workers/inference/capability.ts";
import { statusOutputSchema } from "../../../workers/inference/actions/schemas.ts";
import type { z } from "cjm-substrate/worker";
import { inProcess, type TextClient } from "../../support/text-generation.ts";
import { writeTinyModel, type TinyOptions } from "./tiny-model.ts";

/** A worker with a tiny model, in a folder of its own. */
export interface Site extends AsyncDisposable {
  readonly folder: string;
  readonly client: TextClient;
  readonly model: string;
  readonly status: () => Promise<z.output<typeof statusOutputSchema>>;
}

export async function openSite(
  config: Readonly<Record<string, unknown>> = {},
  tiny: TinyOptions = {},
): Promise<Site> {
  const folder = mkdtempSync(join(tmpdir(), "cjm-inference-"));
  const model = await writeTinyModel(folder, tiny);
  const client = inProcess(createCapability(), { data: join(folder, "data"), output: folder });
  await client.post("/initialize", { model, gpu: "none", threads: 1, ...config });
  return {
    folder,
    client,
    model,
    status: async () => statusOutputSchema.parse(await client.call("status", {})),
    async [Symbol.asyncDispose]() {
      await client.post("/cleanup", {});
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
