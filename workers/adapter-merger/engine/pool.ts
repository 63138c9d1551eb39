import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { faultFrom, MergeFault, type FaultData } from "../fault.ts";
import type { ThreadSpec } from "./thread.ts";

export interface PoolOptions<Result> {
  readonly spec: ThreadSpec;
  readonly threads: number;
  readonly signal: AbortSignal;
  /** In the order in which jobs end. */
  onDone(index: number, result: Result): void;
}

type Reply<Result> =
  | { readonly ok: true; readonly result: Result }
  | { readonly ok: false; readonly fault: FaultData };

/**
 * Runs jobs on threads, each thread taking the next one when it is free; the results are in the
 * order of the jobs. The first failure, or an abort, ends every thread at once, also in the middle
 * of a job.
 *
 * @throws {MergeFault} what a job threw; `CAPABILITY_CANCELLED` if `signal` aborts
 */
export async function runJobs<Result>(
  jobs: readonly unknown[],
  options: PoolOptions<Result>,
): Promise<readonly Result[]> {
  const results: Result[] = Array.from({ length: jobs.length });
  const queue = jobs.entries();
  const workers: Worker[] = [];
  const stopped = Promise.withResolvers<never>();
  const abort = (): void => {
    stopped.reject(new MergeFault("CAPABILITY_CANCELLED", "cancelled", "The merge was cancelled"));
  };
  if (options.signal.aborted) abort();
  options.signal.addEventListener("abort", abort, { once: true });
  try {
    const count = Math.max(1, Math.min(options.threads, jobs.length));
    const running = Array.from({ length: count }, async () => {
      const worker = startThread(options.spec);
      workers.push(worker);
      for (const [index, job] of queue) {
        const result = await runOne<Result>(worker, job);
        results[index] = result;
        options.onDone(index, result);
      }
    });
    await Promise.race([Promise.all(running), stopped.promise]);
    return results;
  } finally {
    options.signal.removeEventListener("abort", abort);
    stopped.promise.catch(() => undefined);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

/** The compiled program has `.js` beside this module, the source `.ts`. */
function startThread(spec: ThreadSpec): Worker {
  const file = new URL(`./thread${extname(new URL(import.meta.url).pathname)}`, import.meta.url);
  return new Worker(file, { workerData: spec, execArgv: [] });
}

async function runOne<Result>(worker: Worker, job: unknown): Promise<Result> {
  const replied = Promise.withResolvers<Result>();
  const fail = (error: unknown): void => replied.reject(error);
  const exited = (code: number): void => {
    fail(new MergeFault("CAPABILITY_ERROR", "thread", `A merge thread exited with code ${code}`));
  };
  const answer = (reply: Reply<Result>): void => {
    if (reply.ok) replied.resolve(reply.result);
    else fail(faultFrom(reply.fault));
  };
  worker.on("message", answer).on("error", fail).on("exit", exited);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  worker.postMessage(job);
  try {
    return await replied.promise;
  } finally {
    worker.off("message", answer).off("error", fail).off("exit", exited);
  }
}
