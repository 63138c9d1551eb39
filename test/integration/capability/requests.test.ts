import { expect, test } from "vitest";
import { Project, run } from "./support.ts";

const raw = new URL("../../fixtures/workers/raw-worker.ts", import.meta.url).href;
/** Answers each call with what it was asked since the call before. */
const script = `
import { serveRaw } from "${raw}";
let asked = [];
serveRaw("counting", (request, response) => {
  asked.push(request.url);
  if (request.url !== "/execute") return response.end("{}");
  response.end(JSON.stringify(asked));
  asked = [];
});`;

test("a job of a warm worker is one request", async () => {
  await using project = await Project.create();
  const any = { input_schema: {}, output_schema: {} };
  await project.addRaw("echo", "counting", {
    code: { actions: { count: any } },
    install: { command: [process.execPath, "--input-type=module", "-e", script] },
  });
  await using pipeline = await project.open();
  await pipeline.manager.load({ capability: "counting" });
  await run(pipeline, "counting", "count");
  for (let n = 0; n < 3; n += 1) {
    expect(await run(pipeline, "counting", "count")).toEqual(["/execute"]);
  }
});
