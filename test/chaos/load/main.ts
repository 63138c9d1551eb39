/**
 * The mixed load in a process of its own, so that what it holds is measured and nothing else:
 *
 *     node -C @cjm/source test/chaos/load/main.ts <seed> <milliseconds>
 *
 * prints the tally as one JSON object.
 */
import { mixedLoad } from "./mixed-load.ts";

const [seed = 1, milliseconds = 0] = process.argv.slice(2).map(Number);
const endsAt = performance.now() + milliseconds;
const tally = await mixedLoad(seed, () => performance.now() >= endsAt);
process.stdout.write(`${JSON.stringify(tally)}\n`);
