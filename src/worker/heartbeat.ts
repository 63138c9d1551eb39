const BEAT_MS = 500;

/** Calls `report` with the elapsed whole seconds at once and twice a second while `work` runs. */
export async function beat<T>(
  work: () => Promise<T>,
  report: (elapsedSeconds: number) => void,
): Promise<T> {
  const startedAt = performance.now();
  const tick = (): void => {
    report(Math.floor((performance.now() - startedAt) / 1000));
  };
  tick();
  const timer = setInterval(tick, BEAT_MS).unref();
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}
