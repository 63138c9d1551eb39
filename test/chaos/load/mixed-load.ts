import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createPipeline, type Pipeline } from "../../../src/host/pipeline.ts";
import { below, pick, randomFrom } from "../support/random.ts";
import { type Sample, startSampling } from "./growth.ts";

const WORKER = fileURLToPath(new URL("load-worker.ts", import.meta.url));
const LANES = 8;
const INSTANCES = ["a", "b", "c"] as const;
const KINDS = ["add", "add", "add", "add", "stream", "leave", "cancel", "fail", "large"] as const;
/** Each costs the start of a worker, during which its instance does nothing else. */
const DEATHS = 0.02;
type Kind = (typeof KINDS)[number] | "die";
type End = "completed" | "failed" | "cancelled";

/** What was done, what the journal says, and what the process held meanwhile. */
export interface LoadTally {
  submitted: number;
  readonly ends: Record<End, number>;
  readonly journal: Record<string, number>;
  readonly samples: Sample[];
  readonly wrong: string[];
}

/**
 * Mixed jobs on real workers until `isOver`: calls, streams, streams that are left, cancels, errors,
 * large results and deaths, eight at a time. How each must end is known when it is submitted.
 */
export async function mixedLoad(
  seed: number,
  isOver: (done: number) => boolean,
): Promise<LoadTally> {
  const folder = await mkdtemp("/tmp/cjl-");
  const tally: LoadTally = {
    submitted: 0,
    ends: { completed: 0, failed: 0, cancelled: 0 },
    journal: {},
    samples: [],
    wrong: [],
  };
  try {
    await writeProject(folder);
    const capabilities = INSTANCES.map((instanceId) => ({ name: "load", instanceId }));
    await using pipeline = await createPipeline({ cwd: folder, capabilities });
    const random = randomFrom(seed);
    const sampler = startSampling(tally.samples);
    const lane = async (): Promise<void> => {
      while (!isOver(tally.submitted)) {
        tally.submitted += 1;
        await oneJob(pipeline, tally, random);
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    clearInterval(sampler);
    await compare(pipeline, tally);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return tally;
}

async function writeProject(folder: string): Promise<void> {
  const manifests = join(folder, "data", "manifests");
  await mkdir(manifests, { recursive: true, mode: 0o700 });
  await writeFile(
    join(folder, "cjm.yaml"),
    `data_dir: data\nqueue:\n  max_concurrent_lanes: ${LANES}\n  admission: permissive\n  max_retries: 0\n`,
  );
  const install = { command: [process.execPath, "-C", "@cjm/source", WORKER] };
  const input = { type: "object" };
  const action = { input_schema: input, output_schema: {} };
  const names = ["add", "hold", "die", "fail", "large"];
  const actions = {
    ...Object.fromEntries(names.map((name) => [name, action])),
    count: { ...action, streaming: true },
  };
  const code = {
    name: "load",
    version: "1",
    sdk: "cjm",
    protocol: 1,
    max_concurrent_requests: 4,
    actions,
  };
  await writeFile(
    join(manifests, "load.json"),
    JSON.stringify({ format_version: "2.0", install, code }),
  );
}

/** A death takes the calls beside it with it: their end is then open. */
async function oneJob(pipeline: Pipeline, tally: LoadTally, random: () => number): Promise<void> {
  const kind: Kind = random() < DEATHS ? "die" : pick(random, KINDS);
  // Only one instance dies, so that most ends are known.
  const instance = kind === "die" ? "c" : pick(random, INSTANCES);
  const mayDie = instance === "c";
  const end = await RUN[kind](pipeline, instance, random);
  tally.ends[end.status] += 1;
  const isExpected = end.expected.includes(end.status) || (mayDie && end.status === "failed");
  if (!isExpected) tally.wrong.push(`${kind} on ${instance} ended ${end.status}: ${end.note}`);
}

interface Ended {
  readonly status: End;
  readonly expected: readonly End[];
  readonly note: string;
}

type Run = (pipeline: Pipeline, instance: string, random: () => number) => Promise<Ended>;

const RUN: Readonly<Record<Kind, Run>> = {
  add: async (pipeline, instance, random) => {
    const [a, b] = [below(random, 1_000), below(random, 1_000)];
    const job = await pipeline.queue.submit(instance, { a, b }, { action: "add" });
    return await ended(pipeline, job, ["completed"], (result) => result === a + b);
  },
  stream: async (pipeline, instance, random) => {
    const chunks = below(random, 50);
    const job = await pipeline.queue.submitStream(instance, { chunks }, { action: "count" });
    const read = await chunksOf(job, Infinity);
    return await ended(pipeline, job, ["completed"], () => read === chunks);
  },
  leave: async (pipeline, instance) => {
    const kwargs = { chunks: 10_000 };
    const job = await pipeline.queue.submitStream(instance, kwargs, { action: "count" });
    await chunksOf(job, 1);
    return await ended(pipeline, job, ["cancelled", "completed"], () => true);
  },
  cancel: async (pipeline, instance) => {
    const job = await pipeline.queue.submit(instance, {}, { action: "hold" });
    await job.cancel();
    return await ended(pipeline, job, ["cancelled"], () => false);
  },
  fail: async (pipeline, instance) => {
    const job = await pipeline.queue.submit(instance, {}, { action: "fail" });
    return await ended(pipeline, job, ["failed"], () => false);
  },
  large: async (pipeline, instance) => {
    const job = await pipeline.queue.submit(instance, { bytes: 400_000 }, { action: "large" });
    return await ended(pipeline, job, ["completed"], (text) => String(text).length === 400_000);
  },
  die: async (pipeline, instance) => {
    const job = await pipeline.queue.submit(instance, {}, { action: "die" });
    return await ended(pipeline, job, ["failed"], () => false);
  },
};

/** How many chunks were read before the stream ended, failed, or was left. */
async function chunksOf(job: AsyncIterable<unknown>, most: number): Promise<number> {
  let read = 0;
  try {
    for await (const _ of job) {
      read += 1;
      if (read === most) break;
    }
  } catch {
    // The job's own end tells why.
  }
  return read;
}

async function ended(
  pipeline: Pipeline,
  job: { readonly id: string; result(): Promise<unknown> },
  expected: readonly End[],
  isRight: (result: unknown) => boolean,
): Promise<Ended> {
  let note = "";
  try {
    if (!isRight(await job.result())) note = "another result";
  } catch (error) {
    note = String(error);
  }
  const status = (await pipeline.queue.getJob(job.id))?.status;
  if (status !== "completed" && status !== "failed" && status !== "cancelled") {
    throw new Error(`Job ${job.id} is over and ${String(status)}`);
  }
  return { status: note === "another result" ? "failed" : status, expected, note };
}

/** The journal must tell the same story as the model. */
async function compare(pipeline: Pipeline, tally: LoadTally): Promise<void> {
  const rows = await pipeline.journal.query({ eventType: "state_transition" });
  for (const { payload } of rows) {
    const to = String(payload["to"]);
    tally.journal[to] = (tally.journal[to] ?? 0) + 1;
  }
  tally.journal["submitted"] = await pipeline.journal.count("job_submitted");
  const stuck = [...pipeline.queue.getRunning(), ...pipeline.queue.getPending()];
  for (const job of stuck) tally.wrong.push(`job ${job.id} is still ${job.status}`);
}
