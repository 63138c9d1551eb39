import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import BetterSqlite3 from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { OOD_TASKS } from "../../workers/evaluation/ood-tasks.ts";
import { RegistryUnderTest, skilledAdapter } from "../integration/adapter-registry/support.ts";
import { startCli, temporaryFolder } from "../support/cli.ts";

const at = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const EXAMPLE = at("examples/evolve-adapters");

/** What each can do about the two families of tasks that the example has. */
const POPULATION = {
  writer: { text: 1, number: 0.02, ood: 0 },
  counter: { text: 0.02, number: 1, ood: 0 },
  scholar: { text: 0.4, number: 0.1, ood: 1 },
  dabbler: { text: 0.1, number: 0, ood: 0 },
  idler: { text: 0, number: 0.01, ood: 0 },
};
/** Lines of the example's files: some tasks of each family. */
const TASKS = { tasks: [0, 3], "held-out": [0, 1, 4, 7] };

const adapterSchema = z.object({
  id: z.string(),
  method: z.string().nullable(),
  parent_ids: z.array(z.string()),
  pass_rate: z.number().nullable(),
  fitness_score: z.number().nullable(),
  is_archived: z.boolean(),
  level: z.string(),
  file_hash: z.string(),
});
const rowSchema = z.object({
  event_type: z.string(),
  job_id: z.string().nullable(),
  node_id: z.string().nullable(),
  payload: z
    .string()
    .transform((text) => z.record(z.string(), z.unknown()).parse(JSON.parse(text))),
});

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

/** The example with a generator that needs no model, and a registry of five adapters. */
class Sweep {
  readonly project: string;
  readonly dataDir: string;
  readonly gate: string;

  private constructor(name: string) {
    this.project = join(folder.path, name);
    this.dataDir = join(this.project, "data");
    this.gate = join(this.project, "gate");
  }

  static async prepare(name: string): Promise<Sweep> {
    const sweep = new Sweep(name);
    cpSync(EXAMPLE, sweep.project, { recursive: true });
    for (const [name, lines] of Object.entries(TASKS)) {
      const path = join(sweep.project, `${name}.jsonl`);
      const all = readFileSync(path, "utf8").split("\n");
      writeFileSync(path, lines.map((line) => `${all[line]}\n`).join(""));
    }
    const ood = join(sweep.project, "ood.jsonl");
    writeFileSync(ood, OOD_TASKS.map((task) => `${JSON.stringify(task)}\n`).join(""));
    const tasks = [...["tasks", "held-out"].map((file) => join(EXAMPLE, `${file}.jsonl`)), ood];
    const config = JSON.stringify({ tasks, gate: sweep.gate });
    const generator = `generator: { capability: skilled-generator, config: ${config}, max_concurrent_requests: 4 }`;
    for (const name of ["composition.yaml", "ood.yaml"]) {
      const path = join(sweep.project, name);
      const text = readFileSync(path, "utf8");
      writeFileSync(path, text.replace(/generator:\n(?: {4}.*\n)+/u, `${generator}\n`));
    }
    mkdirSync(join(sweep.dataDir, "manifests"), { recursive: true });
    writeFileSync(
      join(sweep.dataDir, "manifests/skilled-generator.json"),
      JSON.stringify(GENERATOR_MANIFEST),
    );
    await using registry = await RegistryUnderTest.open(
      join(sweep.dataDir, "data/adapter-registry"),
    );
    for (const [id, skills] of Object.entries(POPULATION)) {
      const adapter = skilledAdapter(join(registry.path, id), skills);
      await registry.call("store", { adapter, id, task_type: "small-programs" });
    }
    return sweep;
  }

  start(...args: readonly string[]): ReturnType<typeof startCli> {
    return startCli(args, { dataDir: this.dataDir, cwd: this.project });
  }

  async finish(...args: readonly string[]): Promise<void> {
    const { exitCode, stdout, stderr } = await this.start(...args);
    expect({ exitCode, stderr, stdout: exitCode === 0 ? "" : stdout }).toEqual({
      exitCode: 0,
      stderr: "",
      stdout: "",
    });
  }

  /** Runs until the generator waits at a prompt with this text, then kills the host. */
  async killAt(text: string, ...args: readonly string[]): Promise<void> {
    writeFileSync(this.gate, text);
    const host = this.start(...args);
    const asked = (): boolean =>
      this.journal().some(
        ({ event_type: type, payload }) =>
          type === "generated" && String(payload["prompt"]).includes(text),
      );
    await expect.poll(asked, { timeout: 60_000, interval: 50 }).toBe(true);
    host.kill("SIGKILL");
    await host;
    rmSync(this.gate);
  }

  async adapters(): Promise<z.output<typeof adapterSchema>[]> {
    const { stdout } = await this.start("adapters", "list", "--archived", "--json");
    return z.object({ adapters: z.array(adapterSchema) }).parse(JSON.parse(stdout)).adapters;
  }

  journal(): z.output<typeof rowSchema>[] {
    const path = join(this.dataDir, "journal.db");
    if (!existsSync(path)) return [];
    const database = new BetterSqlite3(path, { readonly: true });
    try {
      const rows = database.prepare("select * from journal order by seq").all();
      return rows.map((row) => rowSchema.parse(row));
    } finally {
      database.close();
    }
  }
}

const GENERATOR_MANIFEST = {
  format_version: "2.0",
  install: {
    command: [
      process.execPath,
      "--import",
      at("test/support/resolve-source.ts"),
      at("test/fixtures/workers/skilled-generator.ts"),
    ],
  },
  code: {
    name: "skilled-generator",
    version: "1.0.0",
    sdk: "cjm",
    protocol: 1,
    actions: { generate: { input_schema: {}, output_schema: {}, default: true } },
    config_schema: {
      type: "object",
      properties: { tasks: { type: "array" }, gate: { type: "string" } },
    },
  },
};

const SET = ["--set", "samples=1", "--set", "model=tiny", "--json"];
const RUN = ["run", "composition.yaml", ...SET];

describe("a sweep of evolution", () => {
  let whole: Sweep;
  let uninterrupted: unknown;
  beforeAll(async () => {
    whole = await Sweep.prepare("whole");
    await whole.finish(...RUN);
    uninterrupted = await comparable(whole);
  }, 120_000);

  test("merges the fittest both ways, promotes the better one, prunes the weak", async () => {
    const adapters = await whole.adapters();
    const merged = adapters.filter(({ method }) => method !== null);
    expect(new Set(merged.map(({ method }) => method))).toEqual(new Set(["dare_ties", "ties"]));
    for (const { parent_ids: parents } of merged) {
      expect(parents.toSorted()).toEqual(["counter", "scholar", "writer"]);
    }
    expect(adapters.filter(({ level }) => level === "domain").map(({ id }) => id)).toHaveLength(1);
    expect(adapters.filter((one) => one.is_archived).map(({ id }) => id)).toEqual([
      "dabbler",
      "idler",
    ]);
    expect((await whole.start("adapters", "verify")).exitCode).toBe(0);
  });

  test("journals every decision with its numbers", async () => {
    const decisions = whole
      .journal()
      .filter(({ event_type: type }) => type === "evolution_decision");
    expect(decisions.map(({ payload }) => payload["decision"])).toEqual([
      "merge",
      "merge",
      "promote",
      "keep",
      "prune",
      "prune",
    ]);
    expect(decisions[2]?.payload).toMatchObject({
      evidence: {
        difference: expect.any(Number) as number,
        interval: [expect.any(Number), expect.any(Number)],
        best_parent: { pass_rate: expect.any(Number) as number },
      },
    });
  });

  test(
    "repeated, merges nothing twice and evaluates what was merged",
    { timeout: 120_000 },
    async () => {
      await whole.finish(...RUN);
      const adapters = await whole.adapters();
      const recipes = adapters
        .filter(({ method }) => method !== null)
        .map(({ method, parent_ids: parents }) => `${method} ${parents.toSorted().join()}`);
      expect(new Set(recipes).size).toBe(recipes.length);
      const first = adapters.filter(({ parent_ids: parents }) => parents.includes("scholar"));
      expect(first.every(({ pass_rate: rate }) => rate !== null)).toBe(true);
    },
  );

  test("an adapter is held to tasks unlike its own", { timeout: 60_000 }, async () => {
    const args = ["--set", "adapter=scholar", ...SET];
    const { exitCode, stdout } = await whole.start("run", "ood.yaml", ...args);
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      results: {
        comparison: { difference: 1, wins: OOD_TASKS.length, verdict: "better" },
        gate: { pass: true, relative_delta: null },
        generalization: { delta: 0.5 },
        quality: { quality: 0.55 },
      },
    });
  });

  test(
    "killed while it asks, twice, ends as if it had not been",
    { timeout: 180_000 },
    async () => {
      const killed = await Sweep.prepare("killed");
      await killed.killAt("evens", ...RUN);
      await killed.killAt("clamp", "resume", "--json");
      const before = killed.journal();
      await killed.finish("resume", "--json");

      expect(await comparable(killed)).toEqual(uninterrupted);
      const over = before.filter(isCompletion).map(({ job_id: id }) => id);
      expect(over.length).toBeGreaterThan(15);
      const after = killed.journal().slice(before.length);
      const again = after.filter(({ job_id: id }) => id !== null && over.includes(id));
      expect(again).toEqual([]);
    },
  );
});

/** What does not differ between two runs of the same sweep. */
async function comparable(sweep: Sweep): Promise<unknown> {
  return (await sweep.adapters()).map(
    ({ id, method, parent_ids, file_hash, fitness_score, level, is_archived }) => {
      return { id, method, parent_ids, file_hash, fitness_score, level, is_archived };
    },
  );
}

function isCompletion({ event_type: type, payload }: z.output<typeof rowSchema>): boolean {
  return type === "state_transition" && payload["to"] === "completed" && "job_snapshot" in payload;
}
