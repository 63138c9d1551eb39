import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const OLD_NODE =
  'data:text/javascript,Object.defineProperty(process.versions,"node",{value:"20.20.2"})';

test("cjm-ctl on a Node that is too old says so in one sentence", async () => {
  const run = await execa(process.execPath, ["--import", OLD_NODE, MAIN, "list"], {
    reject: false,
  });
  expect(run.exitCode).toBe(1);
  expect(run.stdout).toBe("");
  expect(run.stderr).toMatch(/^cjm-ctl needs Node 24 or newer; this is 20\.20\.2\.[^\n]*$/u);
});
