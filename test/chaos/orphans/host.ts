/**
 * A host with two broods that tells what it does, one JSON object a line:
 *
 *     node test/chaos/orphans/host.ts <project folder> <what>
 *
 * `ready` with its workers' pids when both are up; then, by `what`: `wait` for its end, `evict` both
 * again and again, or `stop`.
 */
import { createPipeline } from "../../../src/host/pipeline.ts";

const [cwd = "", what = "wait"] = process.argv.slice(2);

function tell(event: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
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

tell({ event: "starting" });
const ids = ["a", "b"];
const pipeline = await createPipeline({
  cwd,
  capabilities: ids.map((instanceId) => ({ name: "brood", instanceId })),
});
const instances = ids.map((id) => pipeline.manager.instance(id));
tell({ event: "opened" });
await Promise.all(instances.map((instance) => instance.ensureReady()));
tell({ event: "ready", pids: instances.map(({ pid }) => pid) });
if (what === "evict") await evictForEver();
if (what === "stop") {
  await pipeline.stop();
  tell({ event: "stopped" });
} else {
  // Their ends are what is waited for; the host itself ends by its kill.
  setInterval(() => undefined, 60_000);
}
