/**
 * The host as a library: two small programs, one fed by the other, each in a jail of its own.
 * Ends with a code that is not 0 if the result is not what it must be.
 */
import { composition, createPipeline, ref } from "cjm-substrate";

await using pipeline = await createPipeline({ capabilities: ["sandbox"] });

const run = await pipeline.queue.submitComposition(
  composition({
    write: {
      capability: "sandbox",
      action: "run",
      kwargs: { language: "python", code: "print([n * n for n in range(5)])" },
    },
    check: {
      capability: "sandbox",
      action: "run",
      kwargs: {
        language: "python",
        code: "import json, sys\nprint(sum(json.loads(json.load(sys.stdin))))",
        input: ref("write", "stdout"),
      },
    },
  }),
);

for await (const event of run.events()) {
  if (event.type === "state_transition") {
    console.log(`${event.nodeId ?? "composition"}: ${String(event.payload["to"])}`);
  }
}

const { results } = await run.result();
const check = results["check"];
const isRight =
  typeof check === "object" && check !== null && "stdout" in check && check.stdout === "30\n";
console.log(isRight ? "the two programs agree: 30" : `unexpected: ${JSON.stringify(check)}`);
if (!isRight) process.exitCode = 1;
