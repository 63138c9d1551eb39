/**
 * One merge in a process of its own, which prints its seconds, its report and the peak of its
 * resident memory: `merge-run.ts <folder> <adapters|models> <threads> <input as JSON>`.
 */
import { mergeAdapters } from "../workers/adapter-merger/actions/merge.ts";
import { mergeModels } from "../workers/adapter-merger/actions/merge-models.ts";
import { mergeInputSchema, mergeModelsInputSchema } from "../workers/adapter-merger/schemas.ts";
import { benchCall } from "./merge-fixtures.ts";

const [folder = "", kind = "", threads = "1", input = "{}"] = process.argv.slice(2);
const call = benchCall(folder, Number(threads));
const parsed: unknown = JSON.parse(input);
const { report, timing } =
  kind === "models"
    ? await mergeModels(mergeModelsInputSchema.parse(parsed), call)
    : await mergeAdapters(mergeInputSchema.parse(parsed), call);
const peakMb = process.resourceUsage().maxRSS / 1024;
console.log(JSON.stringify({ seconds: timing.seconds, timing, report, peakMb }));
