import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../../examples/hand-over-one-gpu/main.ts", import.meta.url));

test("the example hands its GPU over, says who gave what back, and ends well", async () => {
  // A code that is not 0 rejects.
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--conditions=@cjm/source",
    MAIN,
  ]);
  const lines = stdout.trimEnd().split("\n");
  expect(lines.filter((line) => line.includes("release")).map((line) => line.trim())).toEqual([
    expect.stringMatching(/^writer release requested/u),
    expect.stringMatching(/^writer release confirmed/u),
    expect.stringMatching(/^trainer release requested/u),
    expect.stringMatching(/^trainer release confirmed/u),
  ]);
  expect(lines.at(-1)).toBe("the GPU went to the trainer and back; the writer's process lived on");
});
