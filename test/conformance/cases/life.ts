import assert from "node:assert/strict";
import { z } from "zod";
import {
  jobErrorBodySchema,
  statsSchema,
  structuralSurfaceSchema,
} from "../../../src/protocol/index.ts";
import { failureOf, memberOf, valueOf, type Case } from "../case.ts";
import type { WorkerUnderTest } from "../worker-under-test.ts";

const DEFAULTS = { greeting: "hello", model: "tiny", level: 1 };

const stateSchema = z.object({
  config: z.record(z.string(), z.unknown()),
  initialized: z.number(),
  released: z.number(),
});
async function stateOf(worker: WorkerUnderTest): Promise<z.output<typeof stateSchema>> {
  return stateSchema.parse(valueOf(await worker.execute("state")));
}

function reconfigure(
  worker: WorkerUnderTest,
  new_config: unknown,
): ReturnType<WorkerUnderTest["post"]> {
  return worker.post("/reconfigure", { old_config: {}, new_config });
}

export const guarding: readonly Case[] = [
  ...(
    [
      ["without a token", null, {}],
      ["with a wrong token", "x".repeat(48), {}],
      ["with the start of the token", "conformance-token-", {}],
      ["with an empty token", "", {}],
      ["with another scheme", null, { authorization: "Basic Y2ptOmNqbQ==" }],
    ] as const
  ).map(([title, token, headers]): Case => ({
    title: `answers 401 to a request ${title}`,
    run: async (worker) => {
      for (const [method, path] of [
        ["get", "/health"],
        ["post", "/execute"],
        ["post", "/cleanup"],
        ["get", "/no/such/path"],
      ] as const) {
        const reply =
          method === "get"
            ? await worker.get(path, { token, headers })
            : await worker.post(path, {}, { token, headers });
        assert.equal(reply.status, 401, `${path}: ${reply.text}`);
      }
    },
  })),
  {
    title: "tells the host about refused requests",
    run: async (worker) => {
      await worker.get("/health", { token: null });
      await worker.frame((frame) => frame.type === "warning");
    },
  },
  {
    title: "never shows the token in what it prints or reports",
    run: async (worker) => {
      const said = worker.output + JSON.stringify(worker.frames);
      assert.ok(!said.includes(worker.token));
    },
  },
];

export const asking: readonly Case[] = [
  {
    title: "answers /stats with the sums over its process tree",
    run: async (worker) => {
      const stats = statsSchema.parse(valueOf(await worker.get("/stats")));
      assert.ok(stats.subtree_pids.includes(stats.pid));
      assert.ok((stats.memory_rss_mb ?? 0) > 1);
      const again = statsSchema.parse(valueOf(await worker.get("/stats")));
      // A load is measured between two questions; before the first there is none.
      assert.ok((again.cpu_percent ?? 0) >= 0);
    },
  },
  {
    title: "answers /structural_surface with its methods and properties, sorted",
    run: async (worker) => {
      const surface = structuralSurfaceSchema.parse(
        valueOf(await worker.get("/structural_surface")),
      );
      const names = surface.methods.map((method) => method.name);
      assert.deepEqual(names, names.toSorted());
      assert.deepEqual(surface.properties, surface.properties.toSorted());
    },
  },
  {
    title: "lists an action's inputs in the order they are declared",
    fixture: true,
    run: async (worker) => {
      const surface = structuralSurfaceSchema.parse(
        valueOf(await worker.get("/structural_surface")),
      );
      const typed = surface.methods.find((method) => method.name === "typed");
      assert.deepEqual(typed?.params, ["count", "name", "ratio", "tags"]);
    },
  },
  {
    title: "answers /config_schema with a closed object schema of draft 2020-12",
    run: async (worker) => {
      const schema = z
        .object({
          $schema: z.literal("https://json-schema.org/draft/2020-12/schema"),
          type: z.literal("object"),
          properties: z.record(z.string(), z.looseObject({})),
          additionalProperties: z.literal(false),
        })
        .parse(valueOf(await worker.get("/config_schema")));
      assert.ok(schema.properties);
    },
  },
  {
    title: "names reload triggers and limits in the config schema",
    fixture: true,
    run: async (worker) => {
      const schema = z
        .object({ properties: z.record(z.string(), z.record(z.string(), z.unknown())) })
        .parse(valueOf(await worker.get("/config_schema")));
      assert.equal(schema.properties["model"]?.["reload_trigger"], "model");
      assert.equal(schema.properties["level"]?.["maximum"], 9);
      assert.equal(schema.properties["greeting"]?.["default"], "hello");
    },
  },
  {
    title: "answers a path it does not know with 404 and a typed error",
    run: async (worker) => {
      const reply = await worker.get("/no/such/path");
      assert.equal(reply.status, 404);
      jobErrorBodySchema.parse(reply.json);
      assert.match(reply.contentType, /^application\/json/u);
    },
  },
  {
    title: "refuses a path with the wrong method",
    run: async (worker) => {
      assert.ok([404, 405].includes((await worker.get("/execute")).status));
      assert.ok([404, 405].includes((await worker.post("/health", {})).status));
    },
  },
  {
    title: "answers many requests on one connection and on many at once",
    run: async (worker) => {
      for (let i = 0; i < 20; i += 1) valueOf(await worker.get("/health"));
      const replies = await Promise.all(Array.from({ length: 20 }, () => worker.get("/health")));
      for (const reply of replies) valueOf(reply);
    },
  },
];

export const living: readonly Case[] = [
  {
    title: "applies the defaults of its config",
    fixture: true,
    run: async (worker) => {
      assert.deepEqual(valueOf(await worker.post("/initialize", {})), { status: "ok" });
      assert.deepEqual(valueOf(await worker.get("/config")), DEFAULTS);
      assert.deepEqual((await stateOf(worker)).config, DEFAULTS);
    },
  },
  {
    title: "refuses a bad config with 400, naming every bad field, and keeps the old one",
    fixture: true,
    run: async (worker) => {
      const reply = await worker.post("/initialize", { greeting: 1, level: 12, colour: "red" });
      assert.equal(reply.status, 400);
      const { fields_invalid = [], category } = failureOf(reply, "CONFIG_INVALID");
      assert.deepEqual(fields_invalid?.toSorted(), ["colour", "greeting", "level"]);
      assert.equal(category, "user_input");
      assert.deepEqual(valueOf(await worker.get("/config")), DEFAULTS);
    },
  },
  {
    title: "fires the releases of changed fields only, then applies the new config",
    fixture: true,
    run: async (worker) => {
      valueOf(await worker.post("/initialize", {}));
      const before = await stateOf(worker);
      const quiet = await reconfigure(worker, { ...DEFAULTS, greeting: "hi" });
      assert.deepEqual(memberOf(quiet, "changed"), ["greeting"]);
      assert.deepEqual(memberOf(quiet, "released"), []);
      assert.equal((await stateOf(worker)).released, before.released);
      const loud = await reconfigure(worker, { ...DEFAULTS, model: "big" });
      assert.equal(memberOf(loud, "status"), "reconfigured");
      assert.deepEqual(memberOf(loud, "released"), ["model"]);
      const after = await stateOf(worker);
      assert.equal(after.released, before.released + 1);
      assert.deepEqual(after.config, { ...DEFAULTS, model: "big" });
      assert.equal(after.initialized, before.initialized + 2);
    },
  },
  {
    title: "refuses to reconfigure to a bad config and releases nothing",
    fixture: true,
    run: async (worker) => {
      valueOf(await worker.post("/initialize", {}));
      const before = await stateOf(worker);
      const reply = await reconfigure(worker, { model: "big", level: "high" });
      assert.equal(reply.status, 400);
      assert.deepEqual(failureOf(reply, "CONFIG_INVALID").fields_invalid, ["level"]);
      assert.deepEqual(await stateOf(worker), before);
    },
  },
  {
    title: "gives the live choices of config fields apart from the schema",
    fixture: true,
    run: async (worker) => {
      assert.deepEqual(valueOf(await worker.get("/config_options")), {
        model: {
          options: [
            { value: "tiny", label: "Tiny", metadata: {} },
            { value: "big", label: "Big", metadata: { layers: 2 } },
          ],
          constraints: {},
        },
      });
    },
  },
  {
    title: "prefetches, reporting progress that belongs to no job",
    fixture: true,
    run: async (worker) => {
      assert.equal(memberOf(await worker.post("/prefetch", {}), "status"), "prefetched");
      const frame = await worker.frame((f) => f.type === "progress" && f.message === "loaded");
      assert.ok(frame.type === "progress" && frame.progress === 1);
      assert.equal(frame.job_id ?? null, null);
    },
  },
  {
    title: "is disabled and enabled",
    fixture: true,
    run: async (worker) => {
      assert.equal(memberOf(await worker.post("/on_disable", {}), "status"), "disabled");
      assert.equal(memberOf(await worker.post("/on_enable", {}), "status"), "enabled");
    },
  },
  {
    title: "gives memory back and says what it still holds",
    fixture: true,
    run: async (worker) => {
      assert.deepEqual(valueOf(await worker.post("/release", { level: "unload" })), {
        status: "released",
        held: "nothing but the process",
        freed_mb: 0,
      });
    },
  },
  {
    title: "answers the monitor protocol",
    fixture: true,
    run: async (worker) => {
      const status = await worker.post("/get_system_status", {});
      for (const key of ["gpu_type", "gpu_free_memory_mb", "memory_available_mb"]) {
        assert.notEqual(memberOf(status, key), undefined);
      }
      const list = z.array(z.record(z.string(), z.unknown()));
      const [first] = list.parse(valueOf(await worker.post("/list_processes", {})));
      assert.ok(first && "pid" in first && "gpu_index" in first && "gpu_memory_mb" in first);
    },
  },
];
