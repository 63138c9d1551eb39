/**
 * One GPU of 24 GiB that two tools need in turn: generate (14 GiB), train (20 GiB), generate again.
 * The queue asks the idle holder to give its memory back, and starts the next when the monitor has
 * seen that it did. No GPU is needed: it is a scripted one, read by the shipped monitor.
 *
 * Ends with a code that is not 0 if the result is not what it must be.
 */
import { composition, ref } from "cjm-substrate";
import { startMachine } from "./machine.ts";

await using machine = await startMachine();
const { queue, journal } = machine.pipeline;

const run = await queue.submitComposition(
  composition({
    first: { capability: "writer" },
    training: { capability: "trainer", kwargs: { after: ref("first", "pid") } },
    second: { capability: "writer", kwargs: { after: ref("training", "pid") } },
  }),
);
const { status, nodes, results } = await run.ended();

const handOver: string[] = [];
for (const { eventType, nodeId, capabilityInstanceId: tool, payload } of await journal.query()) {
  if (eventType.startsWith("eviction_")) {
    handOver.push(`${tool ?? ""} ${eventType.replace("eviction_", "release ")}`);
    console.log(`  ${handOver.at(-1) ?? ""} ${JSON.stringify(payload)}`);
  } else if (eventType === "state_transition" && nodeId !== null) {
    console.log(`${nodeId} (${tool ?? ""}): ${String(payload["to"])}`);
  }
}

const expected = ["writer", "trainer"].flatMap((tool) => [
  `${tool} release requested`,
  `${tool} release confirmed`,
]);
const isRight =
  status === "completed" &&
  JSON.stringify(handOver) === JSON.stringify(expected) &&
  JSON.stringify(results["first"]) === JSON.stringify(results["second"]);
console.log(
  isRight
    ? "the GPU went to the trainer and back; the writer's process lived on"
    : `unexpected: ${JSON.stringify({ status, handOver, nodes })}`,
);
if (!isRight) process.exitCode = 1;
