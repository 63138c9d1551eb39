import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { z } from "zod";
import { tinyAdapter } from "../../integration/adapter-registry/support.ts";
import { runCli, temporaryFolder } from "../../support/cli.ts";

const store = (adapter: unknown, id: string) => ({
  capability: "adapter-registry",
  action: "store",
  kwargs: { adapter, id, task_type: "spelling" },
});
const stored = z.object({ record: z.object({ file_hash: z.string() }) });
const doneSchema = z.object({
  results: z.object({ beside: stored, preset: stored, given: stored }),
});

test("a relative path counts from the composition file, of --set from the working directory", async () => {
  await using folder = await temporaryFolder();
  const [project, elsewhere] = [join(folder.path, "project"), join(folder.path, "elsewhere")];
  for (const [seed, place] of ["a", "b", "c"].entries()) {
    await mkdir(join(project, "made"), { recursive: true });
    tinyAdapter(join(project, "made", place), { seed });
  }
  // Of the same name as one beside the file: what is found says from where it was looked for.
  tinyAdapter(join(elsewhere, "made/a"), { seed: 9 });
  const composition = {
    inputs: {
      preset: { type: "string", default: "made/b" },
      given: { type: "string", default: "made/c" },
    },
    nodes: {
      beside: store("made/a", "beside"),
      preset: store({ $ref: "$input.preset" }, "preset"),
      given: store({ $ref: "$input.given" }, "given"),
    },
  };
  await writeFile(join(project, "store.json"), JSON.stringify(composition));

  const run = await runCli(["run", "../project/store.json", "--json", "--set", "given=made/a"], {
    dataDir: join(folder.path, "data"),
    cwd: elsewhere,
  });
  expect(run.exitCode, run.stderr).toBe(0);
  const { results } = doneSchema.parse(JSON.parse(run.stdout));
  expect(new Set(Object.values(results).map(({ record }) => record.file_hash)).size).toBe(3);
});
