import { appendFileSync, chmodSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { validateJsonSchema } from "../../../src/protocol/index.ts";
import { RegistryUnderTest } from "../../integration/adapter-registry/support.ts";
import { type CliResult, runCli } from "../../support/cli.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const SCHEMA = z
  .object({ $defs: z.record(z.string(), z.record(z.string(), z.unknown())) })
  .parse(JSON.parse(readFileSync(join(ROOT, "schemas/cli.schema.json"), "utf8"))).$defs["adapters"];

let registry: RegistryUnderTest;
beforeAll(async () => {
  registry = await RegistryUnderTest.open();
  await registry.store("left", 1);
  await registry.store("right", 2);
  await registry.store("merged", 3, { parent_ids: ["left", "right"], method: "ties" });
  await registry.call("update_fitness", {
    id: "merged",
    pass_rate: 0.75,
    fitness_score: 0.625,
    evidence: { note: "\u001b[31mred" },
  });
  await registry.call("archive", { id: "left", reason: "weak" });
});
afterAll(() => registry[Symbol.asyncDispose]());

function adapters(...args: readonly string[]): Promise<CliResult> {
  return runCli(["adapters", ...args, "--registry", registry.folder], { dataDir: registry.path });
}

async function json(...args: readonly string[]): Promise<unknown> {
  const { stdout } = await adapters(...args, "--json");
  const answer: unknown = JSON.parse(stdout);
  expect(validateJsonSchema(SCHEMA ?? {}, answer)).toEqual([]);
  return answer;
}

describe("cjm-ctl adapters, beside the worker that writes the registry", () => {
  test("lists what is active, and what is archived where asked to", async () => {
    const { stdout } = await adapters("list");
    expect(stdout).toMatch(/merged +spelling +task +0\.625 +0\.750 +ties +1/u);
    expect(stdout).not.toContain("left");
    expect(await json("list", "--archived")).toMatchObject({
      adapters: [{ id: "left", is_archived: true }, { id: "right" }, { id: "merged" }],
    });
  });

  test("shows an adapter with its decisions, harmless for a terminal", async () => {
    const { stdout } = await adapters("show", "merged");
    expect(stdout).toContain("evaluated");
    expect(stdout).not.toContain("\u001b[31m");
    expect(await json("show", "merged")).toMatchObject({
      adapter: { id: "merged", parent_ids: ["left", "right"] },
      decisions: [{ kind: "stored" }, { kind: "evaluated" }],
    });
  });

  test("draws the lineage as a tree", async () => {
    const { stdout } = await adapters("lineage", "merged");
    expect(stdout.split("\n").map((line) => line.split("  ")[0])).toEqual([
      "merged",
      "├─ left",
      "└─ right",
    ]);
    expect(await json("lineage", "merged")).toEqual({
      id: "merged",
      parents: { merged: ["left", "right"], left: [], right: [] },
    });
  });

  test("names the one that was meant", async () => {
    const { exitCode, stderr } = await adapters("show", "merge");
    expect(exitCode).toBe(2);
    expect(stderr).toContain('did you mean "merged"?');
  });

  test("says nothing was stored where nothing was", async () => {
    const empty = { dataDir: join(registry.path, "empty") };
    expect(await runCli(["adapters", "list"], empty)).toMatchObject({
      exitCode: 0,
      stdout: "There are no adapters.",
    });
  });
});

describe("cjm-ctl adapters verify, without a worker", () => {
  test("finds the byte that changed", async () => {
    await registry.stop();
    expect(await json("verify")).toMatchObject({ ok: true });
    const [file = ""] = registry.files();
    chmodSync(join(registry.folder, file), 0o644);
    appendFileSync(join(registry.folder, file), "x");
    const { exitCode, stdout } = await adapters("verify");
    expect(exitCode).toBe(1);
    expect(stdout).toContain("2 of 3 adapters are what was stored");
  });
});
