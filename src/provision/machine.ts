import { dataDirIdentity, processesWithVariable, SESSION_VARIABLE } from "../process/index.ts";

/**
 * Pids of running workers of a data directory, and of all they started. While a host is live they
 * are its own; without one they are leftovers that the next host ends.
 */
export async function leftoverWorkers(dataDir: string): Promise<readonly number[]> {
  const prefix = `${dataDirIdentity(dataDir)}-`;
  const found = await processesWithVariable(SESSION_VARIABLE, (id) => id.startsWith(prefix));
  return found.map(({ pid }) => pid);
}
