import { readFile, writeFile } from "node:fs/promises";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runCli, temporaryFolder } from "../../support/cli.ts";
import { runInTerminal } from "../../support/terminal.ts";

const MAIN = fileURLToPath(new URL("../../../dist/cli/main.js", import.meta.url));
const FIXTURES = fileURLToPath(new URL("../../fixtures/projects/greeters", import.meta.url));
const ESCAPE = "\u001b";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let dataDir = "";
beforeAll(async () => {
  folder = await temporaryFolder();
  dataDir = join(folder.path, "data");
  await writeFile(
    join(folder.path, "capabilities.yaml"),
    `capabilities:\n  - name: in-place\n    env: path\n    path: ${FIXTURES}/in-place\n`,
  );
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

describe("on a terminal", () => {
  test("lists in colour, no line wider than the terminal", async () => {
    const { raw, lines, exitCode } = await runInTerminal(["list"], { dataDir, columns: 60 });
    expect(exitCode).toBe(0);
    expect(raw).toContain(`${ESCAPE}[33m`);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(60);
    expect(lines.some((line) => line.endsWith("…"))).toBe(true);
  });

  test.for([
    ["NO_COLOR=1", { NO_COLOR: "1" }, false],
    ["NO_COLOR without a value", { NO_COLOR: "" }, true],
    ["TERM=dumb", { TERM: "dumb" }, false],
  ] as const)("with %s colours are as asked", async ([, env, isColoured]) => {
    const { raw, exitCode } = await runInTerminal(["list"], { dataDir, env });
    expect(exitCode).toBe(0);
    expect(raw.includes(ESCAPE)).toBe(isColoured);
  });

  test("help is wrapped to the terminal", async () => {
    const { lines } = await runInTerminal(["logs", "--help"], { dataDir, columns: 72 });
    expect(lines.join(" ")).toContain("--follow");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(72);
  });

  test("set-secret asks unseen, and Ctrl-C leaves everything as it was", async () => {
    const secret = "typed-and-never-shown";
    const args = ["set-secret", "in-place", "KEY"];
    const keys = [["Value of KEY for in-place: ", `${secret}X\u007f\r`]] as const;
    const typed = await runInTerminal(args, { dataDir, keys });
    expect(typed.exitCode, typed.raw).toBe(0);
    expect(typed.lines.join("\n")).toContain("Kept in-place/KEY.");
    expect(typed.raw).not.toContain(secret.slice(0, 5));
    const path = join(dataDir, "secrets/secrets.json");
    const kept = await readFile(path, "utf8");
    expect(kept).toContain(`"${secret}"`);

    const stopped = await runInTerminal(args, {
      dataDir,
      keys: [["Value of KEY for in-place: ", "another-value\u0003"]],
    });
    expect(stopped.exitCode).toBe(2);
    expect(stopped.raw).not.toContain("another");
    expect(await readFile(path, "utf8")).toBe(kept);
  });

  test("install-all shows its progress and gives the cursor back", async () => {
    const { raw, lines, exitCode } = await runInTerminal(["install-all"], {
      dataDir,
      cwd: folder.path,
    });
    expect(exitCode, lines.join("\n")).toBe(0);
    expect(lines.join("\n")).toContain("installed");
    expect(raw.lastIndexOf(`${ESCAPE}[?25h`)).toBeGreaterThanOrEqual(
      raw.lastIndexOf(`${ESCAPE}[?25l`),
    );
  });

  test("remove asks, and anything but yes leaves things as they are", async () => {
    const manifest = join(dataDir, "manifests/in-place.json");
    const before = await readFile(manifest, "utf8");
    const { exitCode } = await runInTerminal(["remove", "in-place"], {
      dataDir,
      cwd: folder.path,
      keys: [["[y/N]", "n\r"]],
    });
    expect(exitCode).toBe(0);
    expect(await readFile(manifest, "utf8")).toBe(before);
  });
});

describe("in a pipe", () => {
  test("nothing but text comes out, as wide as it is", async () => {
    const { stdout, exitCode } = await runCli(["list"], { dataDir });
    expect(exitCode).toBe(0);
    expect(stdout).not.toContain(ESCAPE);
    expect(stdout).not.toContain("…");
  });

  test("nobody is asked", async () => {
    const { exitCode, stderr } = await runCli(["remove", "in-place"], { dataDir });
    expect(exitCode).toBe(2);
    expect(stderr).toContain("--yes");
  });

  test("a reader that goes away is no error to talk about", async () => {
    const child = spawn(process.execPath, [MAIN, "types"], { stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.stdout.destroy();
    const [code] = (await once(child, "close")) as [number];
    expect(stderr).toBe("");
    expect(code).toBe(141);
  });

  test("a mistake gives one line, no stack, and its exit code", async () => {
    for (const args of [
      ["list", "--nope"],
      ["nope"],
      ["logs", "--limit", "x"],
      ["validate", "x"],
    ]) {
      const { exitCode, stderr } = await runCli(args, { dataDir });
      expect(exitCode, args.join(" ")).toBe(2);
      expect(stderr).not.toMatch(/^\s+at /mu);
    }
  });
});
