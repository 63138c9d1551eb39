/**
 * Asks the registry which known weaknesses the locked packages have, for the repository and for every
 * worker with a lock file of its own. Ends with 1 if there is one that what is installed to run can
 * meet; says so and ends with 0 where the registry does not answer that question.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

const ROOT = join(import.meta.dirname, "..");
const auditSchema = z.object({
  metadata: z.object({ vulnerabilities: z.object({ total: z.int() }) }),
});

const workers = readdirSync(join(ROOT, "workers")).map((name) => join("workers", name));
const folders = [".", ...workers].filter((folder) =>
  existsSync(join(ROOT, folder, "package-lock.json")),
);
for (const folder of folders) {
  const args = ["audit", "--json", "--omit=dev", "--package-lock-only"];
  const { stdout } = spawnSync("npm", args, { cwd: join(ROOT, folder), encoding: "utf8" });
  const report = auditSchema.safeParse(parsed(stdout));
  if (!report.success) {
    console.log(`audit ${folder}: not done, the registry does not answer it`);
    continue;
  }
  const { total } = report.data.metadata.vulnerabilities;
  console.log(`audit ${folder}: ${total} known weaknesses`);
  if (total > 0) process.exitCode = 1;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
