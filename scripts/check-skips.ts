/** Fails where a test was skipped that `test/allowed-skips.json` does not list with its reason. */
import { readFileSync } from "node:fs";
import { z } from "zod";

const report = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      assertionResults: z.array(z.object({ fullName: z.string(), status: z.string() })),
    }),
  ),
});
const allowed = z.array(z.object({ test: z.string(), reason: z.string() }));

const [reportPath = ""] = process.argv.slice(2);
const list = allowed.parse(
  JSON.parse(readFileSync(new URL("../test/allowed-skips.json", import.meta.url), "utf8")),
);
const { testResults } = report.parse(JSON.parse(readFileSync(reportPath, "utf8")));
const skipped = testResults.flatMap(({ assertionResults }) =>
  assertionResults.filter(({ status }) => status !== "passed" && status !== "failed"),
);
for (const { fullName } of skipped) {
  const entry = list.find(({ test }) => fullName.startsWith(test));
  if (entry === undefined) {
    console.error(`skipped without a listed reason: ${fullName}`);
    process.exitCode = 1;
  } else {
    console.log(`skipped: ${fullName} (${entry.reason})`);
  }
}
