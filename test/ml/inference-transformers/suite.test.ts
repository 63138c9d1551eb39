import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { z } from "zod";
import { createPipeline } from "../../../src/index.ts";
import { runCli, temporaryFolder } from "../../support/cli.ts";
import {
  dataDir,
  installEnvironments,
  INSTALL_MS,
  runPytest,
  tinyLlm,
} from "../support/environment.ts";

const NAME = "inference-transformers";
const TASK = "text-generation";

const generationSchema = z.object({
  text: z.string(),
  adapters: z.array(z.object({ id: z.string(), sha256: z.string() })),
  evidence: z.object({ adapter_effect: z.number().nullable() }),
});
const doneSchema = z.object({
  status: z.string(),
  results: z.object({
    named: z.object({ adapter: z.object({ sha256: z.string() }) }),
    plain: generationSchema,
    adapted: generationSchema,
  }),
});

describe("inference-transformers", () => {
  beforeAll(installEnvironments, INSTALL_MS);

  test("does in its installed environment what its own tests say", async () => {
    const printed = await runPytest(NAME, fileURLToPath(new URL(".", import.meta.url)));
    expect(printed).toMatch(/\d+ passed/u);
    expect(printed).not.toMatch(/failed|skipped/u);
  }, 600_000);

  test("serves its task under the real host, with and without an adapter", async () => {
    const tiny = await tinyLlm(NAME);
    const messages = [{ role: "user", content: "What colour is sky?" }];
    const asked = { capability: "writer", task: TASK, method: "chat" };
    const composition = {
      name: "answers",
      instances: {
        writer: { capability: NAME, config: { model: tiny.base, device: "cpu", threads: 1 } },
      },
      nodes: {
        named: {
          capability: "writer",
          task: TASK,
          method: "load_adapter",
          kwargs: { id: "swapped", path: tiny.swapped },
        },
        plain: { ...asked, kwargs: { messages, temperature: 0 } },
        adapted: {
          ...asked,
          kwargs: {
            messages,
            temperature: 0,
            adapters: [{ id: { $ref: "named.adapter.id" } }],
          },
        },
      },
    };
    await using folder = await temporaryFolder();
    const file = join(folder.path, "composition.yaml");
    await writeFile(file, stringify(composition));
    const run = await runCli(["run", file, "--json"], { dataDir });
    expect(run.exitCode, run.stderr).toBe(0);
    const { status, results } = doneSchema.parse(JSON.parse(run.stdout));
    expect(status).toBe("completed");
    expect(results.plain).toMatchObject({ text: "The sky is blue.", adapters: [] });
    expect(results.adapted.text).toBe("The sky is green.");
    expect(results.adapted.adapters[0]?.sha256).toBe(results.named.adapter.sha256);
    expect(results.adapted.evidence.adapter_effect).toBeGreaterThan(1);
  }, 120_000);

  test("a worker that dies in the middle of a text ends its call, and the next one starts it", async () => {
    const { base } = await tinyLlm(NAME);
    await using folder = await temporaryFolder();
    await using pipeline = await createPipeline({
      cwd: folder.path,
      dataDir: join(folder.path, "data"),
      searchPaths: [join(dataDir, "manifests")],
      capabilities: [[NAME, { model: base, device: "cpu", threads: 1 }]],
      queue: { maxRetries: 0 },
    });
    const kwargs = {
      messages: [{ role: "user", content: "Count." }],
      temperature: 0,
      // Text without end, of which more is made than fits between the worker and a reader who waits.
      grammar: "root ::= [a-z ] root",
      max_tokens: 900,
    };
    const text = await pipeline.queue.submitStream(NAME, kwargs, { action: "stream" });
    const chunks = text[Symbol.asyncIterator]();
    expect(await chunks.next()).toMatchObject({ value: { type: "delta" } });
    process.kill(pipeline.manager.instance(NAME).pid ?? 0, "SIGKILL");
    await expect(text.result()).rejects.toMatchObject({
      // Without cgroups an unexplained SIGKILL is taken for the kernel's.
      code: expect.stringMatching(/^WORKER_(?:EXITED|OOM)$/u) as string,
    });
    await chunks.return?.(undefined);
    const again = await pipeline.queue.submit(
      NAME,
      { ...kwargs, max_tokens: 2 },
      { action: "chat" },
    );
    expect(await again.result()).toMatchObject({ usage: { completion_tokens: 2 } });
  }, 120_000);
});
