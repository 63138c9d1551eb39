import { parentPort, workerData } from "node:worker_threads";
import { toFaultData } from "../fault.ts";
import { AdapterTask } from "./adapter-task.ts";
import type { AdapterMergeSpec, ModuleJob } from "./jobs.ts";
import { ModelTask, type ModelMergeSpec, type TensorJob } from "./model-task.ts";

/** What a thread is told to be; it then gets one job at a time. */
export type ThreadSpec = AdapterMergeSpec | ModelMergeSpec;

const port = parentPort;
if (port === null) throw new TypeError("This module runs as a worker thread only");

function open(spec: ThreadSpec): (job: unknown) => unknown {
  // oxlint-disable typescript/no-unsafe-type-assertion -- the pool sends a job of the kind it sent as the spec
  if (spec.kind === "adapters") {
    const task = new AdapterTask(spec);
    return (job) => task.run(job as ModuleJob);
  }
  const task = new ModelTask(spec);
  return (job) => task.run(job as TensorJob);
  // oxlint-enable typescript/no-unsafe-type-assertion
}

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the pool is the only one that starts this
const spec = workerData as ThreadSpec;
let run: ((job: unknown) => unknown) | undefined;

port.on("message", (job: unknown) => {
  try {
    run ??= open(spec);
    port.postMessage({ ok: true, result: run(job) });
  } catch (error) {
    port.postMessage({ ok: false, fault: toFaultData(error) });
  }
});
