/** The longest that the event loop was held, as {@link loopHold} saw it. */
export interface LoopHold {
  /** CPU time of this thread within one turn: what others on the machine take is not in it. */
  readonly cpuMs: number;
  /** Time on the wall within one turn. */
  readonly wallMs: number;
}

const cpuNow = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
};

/** Runs `work` and tells how long its longest turn of the event loop was. The loop does not sleep meanwhile. */
export async function loopHold(work: () => Promise<unknown>): Promise<LoopHold> {
  let [cpuMs, wallMs] = [0, 0];
  let [lastCpu, lastWall] = [cpuNow(), performance.now()];
  let isOver = false;
  const turn = (): void => {
    const [cpu, wall] = [cpuNow(), performance.now()];
    cpuMs = Math.max(cpuMs, cpu - lastCpu);
    wallMs = Math.max(wallMs, wall - lastWall);
    [lastCpu, lastWall] = [cpu, wall];
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  try {
    await work();
  } finally {
    // The turn that is under way counts too.
    turn();
    isOver = true;
  }
  return { cpuMs, wallMs };
}
