/**
 * A host with two broods that tells what it does, one JSON object a line:
 *
 *     node test/chaos/orphans/host.ts <project folder> <what>
 *
 * `ready` with its workers' pids when both are up; then, by `what`: `wait` for its end and bring back
 * whoever died (`ready` again), `evict` both again and again, or `stop`.
 */
import { setTimeout as delay } from "node:timers/promises";
import { createPipeline } from "cjm-substrate";

const [cwd = "", what = "wait"] = process.argv.slice(2);

function tell(event: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** Brings back who died, and tells of it. */
async function keepForEver(): Promise<never> {
  let told = pids();
  for (;;) {
    await delay(10);
    // One that dies while it starts is started again in the next round.
    await Promise.allSettled(instances.map((instance) => instance.ensureReady()));
    const now = pids();
    if (now.includes(null) || now.join() === told.join()) continue;
    told = now;
    tell({ event: "ready", pids: now });
  }
}

async function evictForEver(): Promise<never> {
  for (;;) {
    for (const instance of instances) {
      tell({ event: "evicting" });
      await instance.stop("evicted");
      await instance.ensureReady();
    }
  }
}

function pids(): readonly (number | null)[] {
  return instances.map(({ pid }) => pid);
}

tell({ event: "starting" });
const ids = ["a", "b"];
const pipeline = await createPipeline({
  cwd,
  capabilities: ids.map((instanceId) => ({ name: "brood", instanceId })),
});
const instances = ids.map((id) => pipeline.manager.instance(id));
tell({ event: "opened" });
await Promise.all(instances.map((instance) => instance.ensureReady()));
tell({ event: "ready", pids: pids() });
if (what === "evict") await evictForEver();
if (what === "stop") {
  await pipeline.stop();
  tell({ event: "stopped" });
} else {
  await keepForEver();
}
