import { afterAll, beforeAll, expect, test } from "vitest";
import type { Pipeline } from "../../../src/index.ts";
import { failure, Project, rows } from "./support.ts";

let project: Project;
let pipeline: Pipeline;

beforeAll(async () => {
  project = await Project.create();
  // Idle processes use a little CPU even so; the fixture's reports come five times as often.
  await project.writeConfig("substrate:\n  prefetch_stall_threshold_seconds: 0.5\n");
  await project.addRaw("life", "life");
  pipeline = await project.open();
});
afterAll(async () => {
  await pipeline[Symbol.asyncDispose]();
  await project[Symbol.asyncDispose]();
});

test("a prefetch that stalls ends its worker; the second time of the same config it is fatal", async () => {
  const stalling = { capability: "life", instanceId: "stalling", config: { prefetch: "stall" } };
  const instance = await pipeline.manager.load(stalling);
  expect(await failure(instance.prefetch())).toMatchObject({
    code: "PREFETCH_STALLED",
    category: "transient",
  });
  expect(await failure(instance.prefetch())).toMatchObject({
    code: "PREFETCH_STALLED",
    category: "fatal",
  });
  const died = (await rows(pipeline, "worker_died")).map(({ payload }) => payload["phase"]);
  expect(died[0]).toBe("ended by the host");
});

test("a prefetch that reports progress may take as long as it likes", async () => {
  const reporting = { capability: "life", instanceId: "reporting", config: { prefetch: "report" } };
  const instance = await pipeline.manager.load(reporting);
  expect(await instance.prefetch()).toBe("prefetched");
});

test("a worker that hangs in initialize is ended too, and its load fails", async () => {
  const hanging = { capability: "life", instanceId: "hanging", config: { hangs_at_start: true } };
  expect(await failure(pipeline.manager.load(hanging))).toMatchObject({ code: "PREFETCH_STALLED" });
  expect(pipeline.manager.instances.has("hanging")).toBe(false);
});
