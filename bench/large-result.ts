/**
 * A large file through three tools by reference, beside what the same bytes cost by hand:
 *
 *     npm run build && npm run bench -- large-result [--mib 1024] [--rounds 7]
 *
 * Each tool writes the file (the first makes it, the others copy it), syncs and hashes it; what goes
 * through the host is a path and a hash. The limit is `cp`, with and without `sha256sum` of each file.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { composition, ref } from "../src/composition/index.ts";
import { type Numbers, Report } from "./report.ts";
import { openTools } from "./tools.ts";

const { values } = parseArgs({
  options: { mib: { type: "string", default: "1024" }, rounds: { type: "string", default: "7" } },
});
const mib = Number(values.mib);

async function ours(): Promise<Numbers> {
  await using host = await openTools("files", ["make", "copy"]);
  const { queue } = host.pipeline;
  const start = performance.now();
  const run = await queue.submitComposition(
    composition({
      made: { capability: "files-0", action: "make", kwargs: { mib } },
      first: { capability: "files-0", action: "copy", kwargs: { file: ref("made") } },
      second: { capability: "files-0", action: "copy", kwargs: { file: ref("first") } },
    }),
  );
  await run.result();
  return { seconds: (performance.now() - start) / 1_000 };
}

const byHand = (isHashed: boolean) => (): Promise<Numbers> => {
  const folder = mkdtempSync(join(tmpdir(), "bench-files-"));
  try {
    const file = (n: number): string => join(folder, String(n));
    const run = (command: string, ...args: readonly string[]): void =>
      void execFileSync(command, args, { stdio: "ignore" });
    run("dd", "if=/dev/zero", `of=${file(0)}`, "bs=1M", `count=${mib}`);
    const start = performance.now();
    for (const n of [1, 2, 3]) {
      run("cp", file(0), file(n));
      run("sync", file(n));
      if (isHashed) run("sha256sum", file(n));
    }
    return Promise.resolve({ seconds: (performance.now() - start) / 1_000 });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

using report = new Report();
await report.compare(
  {
    row: `${mib} MiB through three tools`,
    rounds: Number(values.rounds),
    metrics: { seconds: "less" },
  },
  { ours, "cp, sync, sha256sum": byHand(true), "cp, sync": byHand(false) },
);
