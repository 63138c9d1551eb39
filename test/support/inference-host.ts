import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  createPipeline,
  type CapabilityRequest,
  type JobHandle,
  type Pipeline,
} from "../../src/index.ts";

const at = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

/** A real host with the built workers, in a folder that goes with it. */
export interface InferenceHost extends AsyncDisposable {
  readonly folder: string;
  readonly pipeline: Pipeline;
}

/** `capabilities` is given the folder, which is there by then. */
export async function openInferenceHost(
  capabilities: (folder: string) => Promise<readonly CapabilityRequest[]>,
): Promise<InferenceHost> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-inference-host-"));
  const manifests = join(folder, "manifests");
  await mkdir(manifests);
  for (const name of ["inference", "adapter-registry"]) {
    const manifest = JSON.parse(await readFile(at(`manifests/${name}.json`), "utf8")) as object;
    // No PID namespace: who kills a process by what it says of itself must mean that one.
    const command = [process.execPath, at(`dist/workers/${name}/main.js`)];
    const install = { command, cage: "group" };
    await writeFile(join(manifests, `${name}.json`), JSON.stringify({ ...manifest, install }));
  }
  const pipeline = await createPipeline({
    cwd: folder,
    dataDir: join(folder, "data"),
    searchPaths: [manifests],
    capabilities: await capabilities(folder),
    queue: { maxRetries: 0 },
  });
  return {
    folder,
    pipeline,
    async [Symbol.asyncDispose]() {
      await pipeline[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A stream of which the first chunk is there. */
export interface BegunStream {
  readonly handle: JobHandle;
  readonly first: unknown;
  /** Reads on to the end. @throws what the job failed with */
  drain(): Promise<void>;
}

export async function beginStream(
  { pipeline }: InferenceHost,
  instance: string,
  kwargs: Readonly<Record<string, unknown>>,
): Promise<BegunStream> {
  const handle = await pipeline.queue.submitStream(instance, kwargs, { action: "stream" });
  const chunks = handle[Symbol.asyncIterator]();
  const { value: first } = (await chunks.next()) as { readonly value: unknown };
  return {
    handle,
    first,
    async drain() {
      for (let next = await chunks.next(); next.done !== true; next = await chunks.next());
    },
  };
}
