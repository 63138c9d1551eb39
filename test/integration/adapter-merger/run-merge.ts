import { Folder, makeCall, mergeCheckpoints, merge } from "./support.ts";

/**
 * Runs one merge in a process of its own: `run-merge.ts <folder> <action> <input as JSON>`. Prints
 * every progress message on a line of its own, so that a test can end the process at a known point,
 * and at the end the answer or the error.
 */
const [root = "", action = "", input = "{}"] = process.argv.slice(2);
const folder = Object.assign(Object.create(Folder.prototype) as Folder, { path: root });
const say = (message: string): boolean => process.stdout.write(`${message}\n`);
const call = makeCall(folder, { onProgress: say });
const run = action === "models" ? mergeCheckpoints : merge;
try {
  const answer: unknown = await run(JSON.parse(input) as never, call);
  say(`answer ${JSON.stringify(answer)}`);
} catch (error) {
  const { message, code, reason } = error as Error & { code?: string; reason?: string };
  say(`error ${JSON.stringify({ message, code, reason })}`);
}
