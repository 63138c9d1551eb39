import { randomHex } from "../util/ids.ts";
import { endCgroups } from "./cgroup.ts";
import { dataDirIdentity } from "./run-folder.ts";
import {
  isAlive,
  killExactly,
  type ProcessIdentity,
  processesWithVariable,
} from "./process-table.ts";

/** Every worker and all it starts inherits this variable; it is how leftovers are recognised. */
export const SESSION_VARIABLE = "CJM_WORKER_SESSION_ID";

/** One host's run over a data directory; its worker sessions carry its mark. */
export class SessionNames {
  readonly #prefix: string;
  readonly #run = randomHex(4);

  constructor(dataDir: string) {
    this.#prefix = dataDirIdentity(dataDir);
  }

  next(): string {
    return `${this.#prefix}-${this.#run}-${randomHex(6)}`;
  }

  /** True for a session of this data directory that an earlier host made. */
  isLeftover(sessionId: string): boolean {
    return (
      sessionId.startsWith(`${this.#prefix}-`) &&
      !sessionId.startsWith(`${this.#prefix}-${this.#run}-`)
    );
  }
}

/**
 * Ends every process that carries a worker session `accepts` says yes to, however it is nested.
 * Repeats until a look finds none, since a process may fork while it is being ended.
 *
 * @returns what was ended, with the session each belonged to.
 */
export async function endSessionProcesses(
  accepts: (sessionId: string) => boolean,
): Promise<ProcessIdentity[]> {
  await endCgroups(accepts);
  const ended = new Map<number, ProcessIdentity>();
  for (let round = 0; round < 50; round += 1) {
    const found = (await processesWithVariable(SESSION_VARIABLE, accepts)).filter(isAlive);
    if (found.length === 0) break;
    for (const target of found) {
      ended.set(target.pid, target);
      killExactly(target);
    }
  }
  return [...ended.values()];
}
