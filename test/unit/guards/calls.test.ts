import { expect, test } from "vitest";
import { createWorkerApp, defineCapability, z } from "../../../src/worker/index.ts";

test("a call that reports nothing sends no frame", async () => {
  const frames: string[] = [];
  const capability = defineCapability({
    name: "quiet",
    version: "1",
    config: z.object({}),
    actions: {
      say: { input: z.object({}), output: z.string(), handler: () => Promise.resolve("said") },
    },
  });
  const app = createWorkerApp(capability, { sink: { send: ({ type }) => frames.push(type) } });
  const post = async (path: string, body: unknown): Promise<unknown> => {
    const response = await app.request(path, { method: "POST", body: JSON.stringify(body) });
    return await response.json();
  };
  await post("/initialize", {});
  frames.length = 0;
  const call = { args: [], kwargs: { action: "say" }, envelope: { job_id: "j" } };
  expect(await post("/execute", call)).toBe("said");
  expect(frames).toEqual([]);
});
