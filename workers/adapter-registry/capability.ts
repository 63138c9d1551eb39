import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type Call, CjmError, defineAction, defineCapability, z } from "cjm-substrate/worker";
import { type AdapterFolder, openAdapterFolder } from "./adapter-folder.ts";
import { AdapterInvalidError } from "./faults.ts";
import type { AdapterRecord, DecisionKind, Standing } from "./record.ts";
import { AdapterRegistry, type Asker, type Grounds } from "./registry.ts";
import * as schemas from "./schemas.ts";
import { exportAdapters, importAdapters } from "./transfer.ts";

const configSchema = z.strictObject({
  folder: z
    .string()
    .optional()
    .describe("Folder of the registry. Without it, the capability's own data folder."),
});

let registry: AdapterRegistry | undefined;

function ready(): AdapterRegistry {
  if (registry === undefined) {
    throw new CjmError("CAPABILITY_ERROR", "The registry is not initialized");
  }
  return registry;
}

const askerOf = ({ envelope, signal }: Call): Asker => {
  return { jobId: envelope.job_id ?? undefined, signal };
};

const nothing = z.strictObject({});

/** Where a decision is made: in the registry, and told to the host's journal. */
async function decide(
  { id, kind }: { readonly id: string; readonly kind: "evaluated" | "promoted" | "archived" },
  change: Partial<Standing>,
  grounds: Grounds,
  call: Call,
): Promise<{ record: AdapterRecord }> {
  const { record, decided } = await ready().decide(id, kind, { change, grounds }, askerOf(call));
  if (decided) tell(call, kind, record, grounds);
  return { record };
}

function tell(call: Call, kind: DecisionKind, record: AdapterRecord, grounds: Grounds): void {
  const { id, file_hash: sha256, task_type, pass_rate, fitness_score, level, domain } = record;
  const standing = { task_type, pass_rate, fitness_score, level, domain };
  call.account(`adapter_${kind}`, { id, sha256, ...standing, ...grounds });
}

const store = defineAction({
  description: "Stores a LoRA adapter once and for all.",
  input: schemas.storeInputSchema,
  output: schemas.storeOutputSchema,
  async handler({ adapter, ...facts }, call) {
    const open = (): Promise<AdapterFolder> => openAdapterFolder(adapter);
    const { record, stored } = await ready().store(open, facts, askerOf(call));
    if (stored) {
      const evidence = { parent_ids: record.parent_ids, method: record.method };
      tell(call, "stored", record, { reason: `from ${record.source}`, evidence });
    }
    return { record, stored };
  },
});

const query = defineAction({
  description: "The adapters that are there, the oldest first; archived ones only if asked for.",
  default: true,
  input: schemas.queryInputSchema,
  output: schemas.recordsOutputSchema,
  async handler({ verify, ...filter }) {
    const records = ready().query(filter);
    if (verify) {
      const { adapters } = await ready().verify(records.map(({ id }) => id));
      const bad = adapters.filter(({ state }) => state !== "ok");
      if (bad.length > 0) {
        throw new AdapterInvalidError(bad.map(({ detail }) => detail).join("; "), { bad });
      }
    }
    return { records };
  },
});

const archiving = {
  export: defineAction({
    description: "Copies adapters with their records and decisions into one folder.",
    input: schemas.exportInputSchema,
    output: schemas.exportOutputSchema,
    async handler({ ids }, call) {
      const all = ids ?? everyId();
      const archive = await exportAdapters(ready(), all, join(call.outputFolder, "registry"));
      return { archive, ids: all };
    },
  }),
  import: defineAction({
    description: "Takes over what export gave; what is there already stays as it is.",
    input: schemas.importInputSchema,
    output: schemas.importOutputSchema,
    handler: ({ archive }, call) => importAdapters(ready(), archive, askerOf(call)),
  }),
  checkout: defineAction({
    description: "Hands out the files of an adapter as a reference, hashed while they are.",
    input: schemas.idInputSchema,
    output: schemas.checkoutOutputSchema,
    async handler({ id }, call) {
      const { record } = ready().retrieveById(id);
      const to = join(call.outputFolder, "adapter");
      await rm(to, { recursive: true, force: true });
      return { record, adapter: await ready().files.handOut(record.file_hash, record.files, to) };
    },
  }),
  verify: defineAction({
    description: "Hashes the files again and says which are not what was stored.",
    input: schemas.verifyInputSchema,
    output: schemas.verifyOutputSchema,
    async handler({ ids }) {
      const { adapters, strays } = await ready().verify(ids);
      const ok = strays.length === 0 && adapters.every(({ state }) => state === "ok");
      return { ok, adapters: [...adapters], strays: [...strays] };
    },
  }),
};

function lastEvaluations(
  taskType: string | undefined,
): z.output<typeof schemas.evaluationsOutputSchema>["evaluations"] {
  const filter = taskType === undefined ? {} : { task_type: taskType };
  const records = ready().query({ ...filter, ...ALL, include_archived: false });
  return records.flatMap(({ id }) => {
    const { decisions } = ready().retrieveById(id);
    const last = decisions.findLast(({ kind }) => kind === "evaluated");
    const tallied = schemas.talliedSchema.safeParse(last?.evidence);
    return tallied.success ? [{ id, tasks: tallied.data.tasks }] : [];
  });
}

const ALL = { unevaluated: false, include_archived: true, limit: Infinity };

function everyId(): string[] {
  return ready()
    .query(ALL)
    .map(({ id }) => id);
}

const deciding = {
  update_fitness: defineAction({
    description: "Records how an adapter did.",
    input: schemas.fitnessInputSchema,
    output: schemas.recordOutputSchema,
    handler: ({ id, evidence, ...change }, call) =>
      decide({ id, kind: "evaluated" }, change, { reason: "", evidence }, call),
  }),
  archive: defineAction({
    description: "Leaves an adapter out of queries from now on; its files stay.",
    input: schemas.archiveInputSchema,
    output: schemas.recordOutputSchema,
    handler: ({ id, ...grounds }, call) =>
      decide({ id, kind: "archived" }, { is_archived: true }, grounds, call),
  }),
  promote: defineAction({
    description: "Raises an adapter from its task to a domain.",
    input: schemas.promoteInputSchema,
    output: schemas.recordOutputSchema,
    handler: ({ id, domain, ...grounds }, call) =>
      decide({ id, kind: "promoted" }, { level: "domain", domain }, grounds, call),
  }),
};

const asking = {
  retrieve_by_id: defineAction({
    description: "One adapter, archived or not, with everything that was decided about it.",
    input: schemas.idInputSchema,
    output: schemas.retrieveOutputSchema,
    handler: ({ id }) => ready().retrieveById(id),
  }),
  query_best_for_task: defineAction({
    description: "The fittest adapters for a task, the older of equals first.",
    input: schemas.bestInputSchema,
    output: schemas.recordsOutputSchema,
    handler: ({ task_type, top_k, level }) => ({ records: ready().best(task_type, top_k, level) }),
  }),
  evaluations: defineAction({
    description: "How each task went when an adapter was last evaluated, where that was recorded.",
    input: schemas.evaluationsInputSchema,
    output: schemas.evaluationsOutputSchema,
    handler: ({ task_type }) => ({ evaluations: lastEvaluations(task_type) }),
  }),
  task_types: defineAction({
    description: "Every task there is an adapter for, archived ones included.",
    input: nothing,
    output: schemas.taskTypesOutputSchema,
    handler: () => ({ task_types: ready().taskTypes() }),
  }),
  is_task_solved: defineAction({
    description: "Whether an adapter that was trained for this task passes it.",
    input: schemas.solvedInputSchema,
    output: schemas.solvedOutputSchema,
    handler({ training_task_hash, threshold }) {
      const by = ready().solverOf(training_task_hash, threshold)?.id ?? null;
      return { solved: by !== null, by };
    },
  }),
  lineage: defineAction({
    description: "An adapter and its line of first parents.",
    input: schemas.idInputSchema,
    output: schemas.lineageOutputSchema,
    handler: ({ id }) => ({ ids: ready().lineage(id) }),
  }),
  lineage_dag: defineAction({
    description: "The parents of an adapter and of all its ancestors.",
    input: schemas.idInputSchema,
    output: schemas.dagOutputSchema,
    handler({ id }) {
      const dag = Object.entries(ready().lineageDag(id));
      return { parents: Object.fromEntries(dag.map(([one, parents]) => [one, [...parents]])) };
    },
  }),
};

/** LoRA adapters, written once, with everything that was decided about them. */
export const capability = defineCapability({
  name: "adapter-registry",
  version: "0.1.0",
  description: "Keeps LoRA adapters: written once, by content, with lineage and decisions.",
  config: configSchema,
  resources: {
    requires_gpu: false,
    platforms: ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"],
    accelerators: [],
  },

  async initialize({ folder }, { dataFolder, signal }) {
    registry?.[Symbol.dispose]();
    registry = undefined;
    registry = await AdapterRegistry.open(folder ?? dataFolder, signal);
  },
  cleanup() {
    registry?.[Symbol.dispose]();
    registry = undefined;
  },

  actions: { query, store, ...asking, ...deciding, ...archiving },
});
