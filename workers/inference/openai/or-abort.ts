/** What `promise` gives, or the reason of `signal` as soon as it aborts; the promise goes on. */
export async function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const stop = (): void => {
    aborted.reject(signal.reason);
  };
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Asks until the answer is true. @returns false when `ms` have passed, or the signal has aborted. */
export async function until(
  isSo: () => Promise<boolean>,
  { ms, stepMs, signal }: { ms: number; stepMs: number; signal: AbortSignal },
): Promise<boolean> {
  const end = performance.now() + ms;
  while (!signal.aborted) {
    if (await isSo()) return true;
    if (performance.now() >= end) return false;
    await pause(stepMs, signal);
  }
  return false;
}

/** Resolves after `ms`, or at once when the signal aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  const over = Promise.withResolvers<undefined>();
  const wake = (): void => {
    over.resolve(undefined);
  };
  const timer = setTimeout(wake, ms);
  if (signal.aborted) wake();
  signal.addEventListener("abort", wake, { once: true });
  await over.promise;
  clearTimeout(timer);
  signal.removeEventListener("abort", wake);
}
