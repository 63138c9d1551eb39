/** Prints how far the host of a fan-out grows: `node bench/memory.ts [nodes]`. */
import { composition } from "../src/composition/index.ts";
import { openQueueHost } from "./queue-host.ts";

const count = Number(process.argv[2] ?? 10_000);
const MIB = 2 ** 20;

await using host = await openQueueHost();
const before = process.memoryUsage.rss();
let peak = before;
const timer = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage.rss());
}, 20);
const nodes = Object.fromEntries(
  Array.from({ length: count }, (_, n) => [`n${n}`, { capability: "noop", kwargs: { n } }]),
);
const run = await host.queue.submitComposition(composition(nodes));
await run.result();
clearInterval(timer);
peak = Math.max(peak, process.memoryUsage.rss());
const live = process.memoryUsage().heapUsed;
console.log(JSON.stringify({ growth: (peak - before) / MIB, live: live / MIB }));
