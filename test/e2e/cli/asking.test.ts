import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { runCli, startCli, temporaryFolder } from "../../support/cli.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let dataDir = "";
let fifo = "";

/** A manifest of a fixture worker, as provisioning would write it. */
function manifest(name: string, fixture: string, action: string): string {
  const script = join(ROOT, "test/fixtures/workers", fixture);
  const any = { type: "object" };
  const described = {
    input_schema: any,
    output_schema: any,
    default: true,
    streaming: false,
    repeatable: true,
  };
  return JSON.stringify({
    format_version: "2.0",
    install: { command: [process.execPath, "-C", "@cjm/source", script] },
    code: {
      name,
      version: "1.0.0",
      sdk: "cjm",
      protocol: 1,
      code_hash: `sha256:${"0".repeat(64)}`,
      config_schema: { type: "object", properties: {} },
      actions: { [action]: described },
    },
  });
}

beforeAll(async () => {
  folder = await temporaryFolder();
  dataDir = join(folder.path, "data");
  fifo = join(folder.path, "fifo");
  await mkdir(join(dataDir, "manifests"), { recursive: true });
  await execa("mkfifo", [fifo]);
  const files = {
    "data/manifests/echo.json": manifest("echo", "echo.ts", "say"),
    "data/manifests/reader.json": manifest("reader", "reads-pipe.ts", "read"),
    "once.yaml": JSON.stringify({
      nodes: { say: { capability: "echo", kwargs: { text: "hello" }, cache: true } },
    }),
    "wait.yaml": JSON.stringify({
      nodes: {
        say: { capability: "echo", kwargs: { text: "first" } },
        wait: { capability: "reader", kwargs: { path: fifo } },
      },
    }),
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder.path, name), text);
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

async function cli(...args: readonly string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await runCli(args, { dataDir, cwd: folder.path });
  expect(exitCode, stderr).toBe(0);
  return stdout;
}

async function json(...args: readonly string[]): Promise<unknown> {
  return JSON.parse(await cli(...args, "--json"));
}

const finished = z.looseObject({ id: z.string(), status: z.string() });

/** Runs a composition to its end; gives its id. */
async function run(...args: readonly string[]): Promise<string> {
  const done = finished.parse(await json("run", ...args));
  expect(done.status).toBe("completed");
  return done.id;
}

async function hits(id: string): Promise<number> {
  const rows = await cli("logs", "--journal", "-n", "0", "--json");
  return rows.split("\n").filter((row) => row.includes(id) && row.includes('"cache_hit"')).length;
}

/** What every question answers about a composition, beside a live host or without one. */
async function askAll(id: string, longest: string): Promise<void> {
  expect(await cli("explain", id)).toContain(longest);
  expect(await cli("trace", `${id}/say`)).toContain("say");
  expect(await cli("profiles")).toContain("echo");
}

/** A host that runs `wait.yaml`, the pipe that ends its call, and its composition's id. */
async function liveHost() {
  const host = startCli(["run", "wait.yaml", "--json"], { dataDir, cwd: folder.path });
  // Opening it to write succeeds once the worker has opened it to read.
  const pipe = await open(fifo, "w");
  const status = z.object({ running: z.array(z.object({ composition_id: z.string() })) });
  let { running } = status.parse(await json("status"));
  // The other node ends by itself.
  while (running.length !== 1) ({ running } = status.parse(await json("status")));
  return { host, pipe, id: running[0]?.composition_id ?? "" };
}

describe("questions about what ran", { timeout: 120_000 }, () => {
  test("are answered without a host; run --force takes nothing from the cache", async () => {
    const first = await run("once.yaml");
    expect(await hits(await run("once.yaml"))).toBe(1);
    expect(await hits(await run("once.yaml", "--force"))).toBe(0);
    await askAll(first, "say");
    expect(await json("status")).toMatchObject({ live: false });
  });

  test("are answered beside a live host, which cancels when it is asked to", async () => {
    const { host, pipe, id } = await liveHost();
    await askAll(id, "wait: attempt 1");
    expect(await json("cancel", id)).toMatchObject({ cancelled: true });
    expect((await host).exitCode).toBe(130);
    await pipe.close();
    expect(await cli("explain", id)).toContain("cancelled");
  });

  test("are answered after its host was killed; resume finishes it, or what cancel began", async () => {
    const first = await liveHost();
    first.host.kill("SIGKILL");
    await first.host;
    await first.pipe.close();
    await askAll(first.id, "wait: attempt 1");
    expect(await json("status")).toMatchObject({ live: false });

    const resumed = startCli(["resume", first.id, "--json"], { dataDir, cwd: folder.path });
    const pipe = await open(fifo, "w");
    await pipe.writeFile("written later");
    await pipe.close();
    expect((await resumed).stdout).toContain("written later");

    const second = await liveHost();
    second.host.kill("SIGKILL");
    await second.host;
    await second.pipe.close();
    expect(await json("cancel", second.id)).toMatchObject({ cancelled: true });
    // Without a host the intent is recorded; who resumes it ends it, and nothing is called again.
    const ended = await runCli(["resume", second.id, "--json"], { dataDir, cwd: folder.path });
    expect(JSON.parse(ended.stdout)).toMatchObject({ status: "cancelled" });
    expect(await cli("explain", second.id)).toContain("cancelled");
  });
});
