/**
 * One merge in a process of its own, which prints its seconds, its report and the peak of its
 * resident memory: `merge-run.ts <folder> <adapters|models> <threads> <input as JSON>`.
 */
import type * as mergeActions from "../workers/adapter-merger/actions/merge.ts";
import type * as modelActions from "../workers/adapter-merger/actions/merge-models.ts";
import type * as schemas from "../workers/adapter-merger/schemas.ts";
import { benchCall } from "./merge-fixtures.ts";

type Actions = typeof mergeActions & typeof modelActions & typeof schemas;

/** The compiled worker, which is what runs in a product (`npm run build` makes it). */
const BUILT = ["actions/merge.js", "actions/merge-models.js", "schemas.js"];
const modules: unknown[] = [];
for (const name of BUILT) {
  modules.push(
    await import(new URL(`../dist/workers/adapter-merger/${name}`, import.meta.url).href),
  );
}
const worker = Object.assign({}, ...modules) as Actions;

const [folder = "", kind = "", threads = "1", input = "{}"] = process.argv.slice(2);
const call = benchCall(folder, Number(threads));
const parsed: unknown = JSON.parse(input);
const { report, timing } =
  kind === "models"
    ? await worker.mergeModels(worker.mergeModelsInputSchema.parse(parsed), call)
    : await worker.mergeAdapters(worker.mergeInputSchema.parse(parsed), call);
const peakMb = process.resourceUsage().maxRSS / 1024;
console.log(JSON.stringify({ seconds: timing.seconds, timing, report, peakMb }));
