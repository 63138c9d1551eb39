import { GUEST_CHANNEL } from "./policy.ts";

export const NODE_HARNESS_FILE = "_harness.mjs";

/**
 * Runs node:test in the guest's own process and reports each test over the channel. What assertions
 * and the runner are made of is frozen before any guest code runs; see the Python harness for what
 * this verdict is worth.
 */
export const NODE_HARNESS = `
import assert from "node:assert";
import fs, { readSync, writeSync } from "node:fs";
import test, { run } from "node:test";
const freeze = (value, seen = new Set()) => {
  if ((typeof value !== "object" && typeof value !== "function") || value === null || seen.has(value)) return;
  seen.add(value);
  try { Object.freeze(value); } catch { return; }
  for (const key of Reflect.ownKeys(value)) {
    const part = Object.getOwnPropertyDescriptor(value, key);
    if (part !== undefined && "value" in part) freeze(part.value, seen);
  }
};
const main = async () => {
  const { stringify } = JSON;
  const exit = process.reallyExit.bind(process);
  const byte = Buffer.alloc(1);
  let nonce = "";
  while (readSync(${GUEST_CHANNEL}, byte) === 1 && byte[0] !== 10) nonce += String.fromCharCode(byte[0]);
  const report = (name, outcome, message = "") => {
    let text = nonce + " " + stringify([name, outcome, message]) + "\\n";
    writeSync(${GUEST_CHANNEL}, text);
  };
  for (const part of [assert, assert.strict, test, run, fs, JSON]) freeze(part);
  const names = [];
  const events = run({ files: [process.cwd() + "/" + process.argv[2]], isolation: "none", concurrency: false });
  let pending;
  const settled = new Promise((resolve) => { pending = resolve; });
  events.on("test:start", ({ name, nesting }) => { names.length = nesting; names[nesting] = name; });
  const onEnd = (outcome) => ({ name, nesting, details, skip, todo }) => {
    const path = [...names.slice(0, nesting), name].join(" > ");
    const kind = skip !== undefined || todo !== undefined ? "skipped" : outcome;
    if (details?.type === "suite") {
      if (kind === "failed" && details.error?.failureType === "hookFailed") report("", "load_error", "a hook failed");
      return;
    }
    report(path, kind, String(details?.error?.cause?.message ?? details?.error?.message ?? "").slice(0, 2000));
  };
  events.on("test:pass", onEnd("passed"));
  events.on("test:fail", onEnd("failed"));
  events.on("end", () => pending());
  events.resume();
  await settled;
  report("", "done");
  exit(0);
};
await main();
`;
