import { appendFileSync, chmodSync, cpSync, existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RegistryUnderTest, tinyAdapter } from "./support.ts";

let registry: RegistryUnderTest;
beforeEach(async () => {
  registry = await RegistryUnderTest.open();
});
afterEach(() => registry[Symbol.asyncDispose]());

const source = (name: string): string => join(registry.path, "sources", name);

describe("storing", () => {
  test("keeps the bytes under their content, with what the adapter says of itself", async () => {
    const adapter = tinyAdapter(source("a"), { seed: 1, rank: 3, base: "llama" });
    const { value } = await registry.call("store", { adapter, task_type: "spell backwards" });
    expect(value).toMatchObject({
      stored: true,
      record: {
        id: expect.stringMatching(/^spell-backwards-[0-9a-f]{12}$/u) as string,
        base_model_id: "llama",
        rank: 3,
        generation: 0,
        parent_ids: [],
        pass_rate: null,
        is_archived: false,
        level: "task",
      },
    });
    rmSync(adapter, { recursive: true });
    expect(registry.files()).toHaveLength(2);
    expect((await registry.call("verify")).value).toMatchObject({ ok: true, strays: [] });
  });

  test("refuses an id that is taken before a byte is written", async () => {
    await registry.store("one", 1);
    const before = registry.files();
    await expect(registry.store("one", 2)).rejects.toMatchObject({
      kind: "AdapterAlreadyExistsError",
      code: "CAPABILITY_INPUT",
    });
    expect(registry.files()).toEqual(before);
  });

  test("refuses a content that is stored under another id", async () => {
    await registry.store("one", 1);
    await expect(registry.store("two", 1)).rejects.toMatchObject({
      kind: "AdapterAlreadyExistsError",
      message: expect.stringContaining('as "one"') as string,
    });
  });

  test("answers with the same adapter again where that was asked for", async () => {
    await registry.store("one", 1);
    const again = { adapter: source("one"), task_type: "spelling", on_duplicate: "return" };
    expect((await registry.call("store", { ...again, id: "one" })).at("stored")).toBe(false);
    expect((await registry.call("store", again)).at("record.id")).toBe("one");
    await expect(registry.call("store", { ...again, id: "other" })).rejects.toMatchObject({
      kind: "AdapterAlreadyExistsError",
    });
  });

  test("answers a repeated job with what it did, though its source is gone", async () => {
    const adapter = tinyAdapter(source("a"), { seed: 1 });
    const first = await registry.call("store", { adapter, task_type: "t" }, "job-x");
    rmSync(adapter, { recursive: true });
    const second = await registry.call("store", { adapter, task_type: "t" }, "job-x");
    expect(second.value).toEqual(first.value);
  });

  test("never has two of fifty stores of one id succeed", async () => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 50 }, (_, seed) => {
        const adapter = tinyAdapter(source(String(seed)), { seed });
        return registry.call("store", { adapter, id: "wanted", task_type: "t" });
      }),
    );
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(registry.files()).toHaveLength(2);
  });

  test.each([
    ["no config", (at: string) => rmSync(join(at, "adapter_config.json")), "adapter_config.json"],
    ["no weights", (at: string) => rmSync(join(at, "adapter_model.safetensors")), "safetensors"],
    [
      "a config that is no JSON",
      (at: string) => writeFileSync(join(at, "adapter_config.json"), "{"),
      "is not JSON",
    ],
    [
      "a rank of zero",
      (at: string) => writeFileSync(join(at, "adapter_config.json"), '{"r":0}'),
      "adapter_config.json: r",
    ],
    [
      "weights that were cut short",
      (at: string) => writeFileSync(join(at, "adapter_model.safetensors"), "\x40\0\0\0\0\0\0\0{"),
      "cut short",
    ],
  ])("refuses a folder with %s", async (_, spoil, message) => {
    const adapter = tinyAdapter(source("bad"), { seed: 1 });
    spoil(adapter);
    await expect(registry.call("store", { adapter, task_type: "t" })).rejects.toMatchObject({
      kind: "AdapterInvalidError",
      message: expect.stringContaining(message) as string,
    });
    expect(registry.files()).toEqual([]);
  });

  test("refuses a reference whose files are others, or lie elsewhere", async () => {
    const adapter = tinyAdapter(source("a"), { seed: 1 });
    await registry.call("store", { adapter, id: "a", task_type: "t" });
    const given = (await registry.call("checkout", { id: "a" })).at<DirRefLike>("adapter");
    const lie = { ...given.data, sha256: `sha256:${"0".repeat(64)}` };
    await expect(
      registry.call("store", { adapter: { ...given, data: lie }, task_type: "t" }),
    ).rejects.toMatchObject({ kind: "AdapterInvalidError" });
    const files = given.data.files.map((file) => ({ ...file, name: `../${file.name}` }));
    await expect(
      registry.call("store", {
        adapter: { ...given, data: { ...given.data, files } },
        task_type: "t",
      }),
    ).rejects.toMatchObject({ kind: "AdapterInvalidError" });
    expect(registry.files()).toHaveLength(2);
  });

  test("refuses parents that are not there, and a rank that is not the file's", async () => {
    await expect(registry.store("child", 1, { parent_ids: ["nobody"] })).rejects.toMatchObject({
      kind: "AdapterNotFoundError",
    });
    await expect(registry.store("child", 1, { rank: 64 })).rejects.toMatchObject({
      kind: "AdapterInvalidError",
    });
  });
});

interface DirRefLike {
  readonly data: { readonly path: string; readonly files: readonly { readonly name: string }[] };
}

describe("asking", () => {
  beforeEach(async () => {
    await registry.store("a", 1);
    await registry.store("b", 2);
    await registry.store("c", 3, { task_type: "counting", training_task_hash: "task-1" });
    await registry.store("ab", 4, { parent_ids: ["a", "b"], source: "evolution" });
    await registry.store("abc", 5, { parent_ids: ["ab", "c"], source: "evolution" });
  });

  const ids = async (action: string, kwargs: object = {}): Promise<string[]> =>
    (await registry.call(action, kwargs)).at<{ id: string }[]>("records").map(({ id }) => id);

  test("lists what is there, filtered", async () => {
    await registry.call("archive", { id: "b", reason: "weak" });
    expect(await ids("query")).toEqual(["a", "c", "ab", "abc"]);
    expect(await ids("query", { include_archived: true, task_type: "spelling" })).toEqual([
      "a",
      "b",
      "ab",
      "abc",
    ]);
    expect(await ids("query", { source: "evolution", limit: 1 })).toEqual(["ab"]);
    expect(await ids("query", { parent_ids: ["b", "a"] })).toEqual(["ab"]);
    expect((await registry.call("task_types")).at("task_types")).toEqual(["counting", "spelling"]);
  });

  test("finds the fittest, the older of equals, and the unevaluated", async () => {
    for (const [id, fitness_score] of Object.entries({ a: 0.5, b: 0.9, ab: 0.9, abc: 0.1 })) {
      await registry.call("update_fitness", { id, pass_rate: fitness_score, fitness_score });
    }
    expect(await ids("query_best_for_task", { task_type: "spelling" })).toEqual(["b", "ab", "a"]);
    expect(await ids("query", { unevaluated: true })).toEqual(["c"]);
    expect(await ids("query", { base_model_id: "another" })).toEqual([]);
    expect(await ids("query", { base_model_id: "tiny", source: "evolution", limit: 1 })).toEqual([
      "ab",
    ]);
  });

  test("knows which task is solved, and by whom", async () => {
    const solved = async (): Promise<unknown> =>
      (await registry.call("is_task_solved", { training_task_hash: "task-1" })).value;
    expect(await solved()).toEqual({ solved: false, by: null });
    await registry.call("update_fitness", { id: "c", pass_rate: 0.95, fitness_score: 0.8 });
    expect(await solved()).toEqual({ solved: true, by: "c" });
    await registry.call("archive", { id: "c" });
    expect(await solved()).toEqual({ solved: false, by: null });
  });

  test("draws the lineage by first parents and over all parents", async () => {
    expect((await registry.call("lineage", { id: "abc" })).at("ids")).toEqual(["abc", "ab", "a"]);
    expect((await registry.call("lineage_dag", { id: "abc" })).at("parents")).toEqual({
      abc: ["ab", "c"],
      ab: ["a", "b"],
      c: [],
      a: [],
      b: [],
    });
    expect((await registry.call("retrieve_by_id", { id: "abc" })).at("record.generation")).toBe(2);
  });

  test.each(["retrieve_by_id", "archive", "lineage", "lineage_dag", "checkout"])(
    "%s names an id that is not there",
    async (action) => {
      await expect(registry.call(action, { id: "nobody" })).rejects.toMatchObject({
        kind: "AdapterNotFoundError",
        code: "CAPABILITY_INPUT",
      });
    },
  );
});

describe("deciding", () => {
  test("keeps every decision with its numbers, once for each job", async () => {
    await registry.store("a", 1);
    const fitness = { id: "a", pass_rate: 0.7, fitness_score: 0.6, evidence: { tasks: 10 } };
    await registry.call("update_fitness", fitness, "job-f");
    await registry.call("update_fitness", fitness, "job-f");
    const promote = { id: "a", domain: "strings", reason: "better", evidence: { by: 0.2 } };
    await registry.call("promote", promote, "job-p");
    await registry.call("promote", promote, "job-p");
    const { value } = await registry.call("retrieve_by_id", { id: "a" });
    expect(value).toMatchObject({
      record: { pass_rate: 0.7, fitness_score: 0.6, level: "domain", domain: "strings" },
      decisions: [
        { kind: "stored" },
        { kind: "evaluated", evidence: { tasks: 10 }, job_id: "job-f" },
        { kind: "promoted", reason: "better", evidence: { by: 0.2 }, job_id: "job-p" },
      ],
    });
    expect(registry.worker.accounts.map(({ type }) => type)).toEqual([
      "adapter_stored",
      "adapter_evaluated",
      "adapter_evaluated",
      "adapter_promoted",
      "adapter_promoted",
    ]);
  });

  test("promotes nothing that is archived", async () => {
    await registry.store("a", 1);
    await registry.call("archive", { id: "a" });
    await expect(registry.call("promote", { id: "a", domain: "strings" })).rejects.toMatchObject({
      kind: "AdapterInvalidError",
    });
  });

  test("refuses a pass rate that is none", async () => {
    await registry.store("a", 1);
    await expect(
      registry.call("update_fitness", { id: "a", pass_rate: 1.5, fitness_score: 0 }),
    ).rejects.toMatchObject({ code: "CAPABILITY_INPUT" });
  });

  test("lets nobody change or delete what is stored, whoever opens the database", async () => {
    await registry.store("a", 1);
    await registry.stop();
    const database = new BetterSqlite3(join(registry.folder, "registry.db"));
    try {
      for (const statement of [
        "update adapter set file_hash = 'x'",
        "update adapter set id = 'x'",
        "delete from adapter",
        "update decision set evidence = '{}'",
        "delete from decision",
      ]) {
        expect(() => database.exec(statement)).toThrow(/once|never deleted|kept/u);
      }
    } finally {
      database.close();
    }
  });
});

describe("the files", () => {
  test("are handed out by content and refused once they changed", async () => {
    await registry.store("a", 1);
    const given = (await registry.call("checkout", { id: "a" })).at<DirRefLike>("adapter");
    expect(existsSync(join(given.data.path, "adapter_config.json"))).toBe(true);

    const weights = registry.files().find((name) => name.endsWith(".safetensors")) ?? "";
    chmodSync(join(registry.folder, weights), 0o644);
    appendFileSync(join(registry.folder, weights), "x");
    expect((await registry.call("verify")).value).toMatchObject({
      ok: false,
      adapters: [{ id: "a", state: "changed" }],
    });
    await expect(registry.call("checkout", { id: "a" })).rejects.toMatchObject({
      kind: "AdapterInvalidError",
    });
    await expect(registry.call("query", { verify: true })).rejects.toMatchObject({
      kind: "AdapterInvalidError",
    });
    rmSync(join(registry.folder, weights));
    expect((await registry.call("verify", { ids: ["a"] })).at("adapters.0.state")).toBe("missing");
  });

  test("that no record has are named", async () => {
    await registry.store("a", 1);
    const [file = ""] = registry.files();
    const folder = join(registry.folder, file, "..");
    cpSync(folder, join(registry.folder, "adapters/00", "0".repeat(64)), { recursive: true });
    const { value } = await registry.call("verify");
    expect(value).toMatchObject({ ok: false, adapters: [{ state: "ok" }] });
    expect((value as { strays: string[] }).strays).toHaveLength(1);
  });
});

describe("export and import", () => {
  test("carry records, decisions and files to another registry", async () => {
    await registry.store("a", 1);
    await registry.store("b", 2, { parent_ids: ["a"] });
    await registry.call("update_fitness", { id: "b", pass_rate: 1, fitness_score: 0.9 });
    await registry.call("archive", { id: "a", reason: "done" });
    const archive = (await registry.call("export")).at("archive");
    const before = (await registry.call("retrieve_by_id", { id: "b" })).value;

    await using other = await closedAndOther();
    expect((await other.call("import", { archive })).value).toEqual({
      imported: ["a", "b"],
      present: [],
    });
    const after = await other.call("retrieve_by_id", { id: "b" });
    const { record, decisions } = before as { record: object; decisions: object[] };
    expect(after.at("record")).toEqual({
      ...record,
      file_path: expect.stringContaining(other.folder) as string,
    });
    expect(after.at<object[]>("decisions").slice(0, -1)).toEqual(decisions);
    expect((await other.call("verify")).at("ok")).toBe(true);
    expect((await other.call("import", { archive })).value).toEqual({
      imported: [],
      present: ["a", "b"],
    });
  });

  test("refuse another adapter under the same id before anything is taken over", async () => {
    await registry.store("new", 7);
    await registry.store("same", 1);
    const archive = (await registry.call("export")).at("archive");
    await using other = await closedAndOther();
    await other.store("same", 2);
    await expect(other.call("import", { archive })).rejects.toMatchObject({
      kind: "AdapterAlreadyExistsError",
    });
    expect(other.files()).toHaveLength(2);
  });

  /** The worker has one registry; the archive outlives the first. */
  async function closedAndOther(): Promise<RegistryUnderTest> {
    await registry.stop();
    return RegistryUnderTest.open();
  }
});

describe("opening", () => {
  test("refuses adapters without their records, and leaves them alone", async () => {
    await registry.store("a", 1);
    await registry.stop();
    for (const name of ["registry.db", "registry.db-wal", "registry.db-shm"]) {
      rmSync(join(registry.folder, name), { force: true });
    }
    await expect(registry.start()).rejects.toMatchObject({ code: "DATABASE_CORRUPT" });
    expect(registry.files()).toHaveLength(2);
  });

  test("refuses a database that is damaged or newer", async () => {
    await registry.stop();
    const path = join(registry.folder, "registry.db");
    const database = new BetterSqlite3(path);
    database.pragma("user_version = 99");
    database.close();
    await expect(registry.start()).rejects.toMatchObject({ code: "DATABASE_NEWER" });
    writeFileSync(path, "this is no database".repeat(100));
    await expect(registry.start()).rejects.toMatchObject({ code: "DATABASE_CORRUPT" });
  });
});
