import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPipeline, type Pipeline } from "../src/index.ts";
import { compilePrograms, nodeCommand } from "./worker-subjects.ts";

/** A host with tools of this folder, run compiled, in the usual cage. */
export interface ToolHost extends AsyncDisposable {
  readonly pipeline: Pipeline;
  /** Where its files lie. */
  readonly folder: string;
}

/**
 * Starts one instance of each name; `program` is the file in `workers/` that they run.
 *
 * @param actions what can be called; inputs and outputs are not checked by the host
 */
export async function openTools(
  program: "files" | "chatter",
  actions: readonly string[],
  instances = 1,
): Promise<ToolHost> {
  await using stack = new AsyncDisposableStack();
  stack.use(await compilePrograms());
  const folder = await mkdtemp(join(tmpdir(), "cjm-bench-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const manifests = join(folder, "manifests");
  await mkdir(manifests);
  await writeFile(
    join(manifests, `${program}.json`),
    JSON.stringify({
      format_version: "2.0",
      install: { command: nodeCommand(program) },
      code: {
        name: program,
        version: "1.0.0",
        sdk: "cjm",
        protocol: 1,
        actions: Object.fromEntries(
          actions.map((name) => [name, { input_schema: {}, output_schema: {} }]),
        ),
        config_schema: { type: "object", properties: {} },
      },
    }),
  );
  const pipeline = await createPipeline({
    dataDir: join(folder, "data"),
    cwd: folder,
    searchPaths: [manifests],
    capabilities: Array.from({ length: instances }, (_, index) => ({
      name: program,
      instanceId: `${program}-${index}`,
    })),
    queue: { maxConcurrentLanes: Math.max(4, instances) },
  });
  stack.defer(() => pipeline.stop({ drainMs: 1_000 }));
  const owned = stack.move();
  return { pipeline, folder, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
