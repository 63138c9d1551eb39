import PQueue from "p-queue";

/** How several things are done at once. */
export interface Many {
  /** @default 4 */
  readonly maxConcurrent?: number | undefined;
  /**
   * True: after the first failure nothing more is begun; what runs is waited for, then that failure
   * is thrown. False: everything is tried and every outcome given. @default true
   */
  readonly failFast?: boolean | undefined;
}

/** What became of one of them. */
export interface Attempt<Request, Value> {
  readonly request: Request;
  readonly value?: Value;
  readonly error?: unknown;
}

/** @throws the first failure, with `failFast`. */
export async function forEachLimited<Request, Value>(
  requests: readonly Request[],
  work: (request: Request) => Promise<Value>,
  { maxConcurrent = 4, failFast = true }: Many,
): Promise<readonly Attempt<Request, Value>[]> {
  const queue = new PQueue({ concurrency: maxConcurrent });
  const failures: unknown[] = [];
  const attempts = await Promise.all(
    requests.map((request) =>
      queue.add(async (): Promise<Attempt<Request, Value>> => {
        if (failFast && failures.length > 0) return { request };
        try {
          return { request, value: await work(request) };
        } catch (error) {
          failures.push(error);
          return { request, error };
        }
      }),
    ),
  );
  if (failFast && failures.length > 0) throw failures[0];
  return attempts;
}
