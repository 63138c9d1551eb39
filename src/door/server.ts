import type { JobQueue } from "../queue/index.ts";
import type { StorePort } from "../store/index.ts";
import type { CapabilityManager } from "../capability/index.ts";
export interface Door extends AsyncDisposable {
  readonly path: string;
}
export async function openDoor(
  path: string,
  _parts: { queue: JobQueue; manager: CapabilityManager; store: StorePort; resources: unknown },
): Promise<Door> {
  return { path, async [Symbol.asyncDispose]() {} };
}
