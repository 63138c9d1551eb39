import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { CapabilityExecutor, type JobMeter } from "../../../src/capability/index.ts";
import type { Pipeline } from "../../../src/host/pipeline.ts";
import { fixtureCommand, Project, rows } from "./support.ts";

const NO_METER: JobMeter = {
  begin: () => undefined,
  end: () => Promise.resolve({ gpuMb: {}, hostMb: null, cpuPercent: null, isAlone: true }),
};

/** A host with one ready worker that answers a release in this way. */
async function host(release: string): Promise<{
  readonly project: Project;
  readonly pipeline: Pipeline;
  readonly executor: CapabilityExecutor;
}> {
  const project = await Project.create();
  const folder = join(project.folder, "vram");
  const [node = "", ...script] = fixtureCommand("holds-vram");
  const command = [node, ...script, "writer", folder, "GPU-simulated", "1", release];
  await project.addRaw("holds-vram", "writer", { install: { command } });
  const pipeline = await project.open({ capabilities: ["writer"] });
  const executor = new CapabilityExecutor(pipeline.manager, NO_METER, {
    work: join(project.folder, "work"),
    files: join(project.folder, "files"),
    releaseTimeoutMs: 300,
  });
  return { project, pipeline, executor };
}

async function states(pipeline: Pipeline): Promise<readonly string[]> {
  const died = await rows(pipeline, "worker_died");
  return [pipeline.manager.instance("writer").state, ...died.map(({ eventType }) => eventType)];
}

describe("a worker that is asked to release memory", () => {
  test("lives on when it does", async () => {
    const { project, pipeline, executor } = await host("well");
    await using _project = project;
    await using _pipeline = pipeline;
    await executor.release("writer", "sleep");
    expect(await states(pipeline)).toEqual(["ready"]);
  });

  test("is ended when it cannot, and when all of it is to go", async () => {
    const { project, pipeline, executor } = await host("unsupported");
    await using _project = project;
    await using _pipeline = pipeline;
    await executor.release("writer", "sleep");
    expect(await states(pipeline)).toEqual(["absent", "worker_died"]);
    await pipeline.manager.instance("writer").ensureReady();
    await executor.release("writer", "unload");
    expect(await states(pipeline)).toEqual(["absent", "worker_died", "worker_died"]);
  });

  test("and hangs is given up after a limit, and can then be ended", async () => {
    const { project, pipeline, executor } = await host("hang");
    await using _project = project;
    await using _pipeline = pipeline;
    await expect(executor.release("writer", "sleep")).rejects.toMatchObject({
      code: "CAPABILITY_TIMEOUT",
      message: expect.stringContaining("300 ms") as unknown,
    });
    await executor.end("writer", "it hangs");
    expect(await states(pipeline)).toEqual(["absent", "worker_died"]);
  });

  test("has nothing to release when it is not there, or never was", async () => {
    const { project, pipeline, executor } = await host("well");
    await using _project = project;
    await using _pipeline = pipeline;
    await pipeline.manager.unload("writer");
    await executor.release("writer", "sleep");
    await executor.end("nobody", "there is none");
    expect(pipeline.manager.instances.has("writer")).toBe(false);
  });
});
