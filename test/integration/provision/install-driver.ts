// Runs `installAll` in a process of its own, for tests that kill it: install-driver.ts <project>
import { loadConfig } from "../../../src/config/index.ts";
import { installAll } from "../../../src/provision/index.ts";

const config = await loadConfig({ cwd: process.argv[2] ?? ".", env: {} });
const results = await installAll({
  config,
  onEvent: (event) => process.stdout.write(`${JSON.stringify(event)}\n`),
});
process.exitCode = results.every(({ outcome }) => outcome !== "failed") ? 0 : 1;
