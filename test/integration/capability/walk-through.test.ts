import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const ROOT = join(import.meta.dirname, "../../..");
const GUIDE = join(ROOT, "docs/writing-a-capability.md");

interface Command {
  readonly command: string;
  readonly output: string;
}
type Step = Command | { readonly file: string; readonly content: string };

/** What the guide's walk-through tells its reader to do, in order. */
function stepsOf(guide: string): readonly Step[] {
  const start = guide.indexOf("## A walk through");
  const section = guide.slice(start, guide.indexOf("\n## ", start + 1));
  const blocks = section.matchAll(/^```(?<kind>console|yaml)\n(?<body>[\s\S]*?)^```$/gmu);
  return [...blocks].flatMap(({ groups }): Step[] => {
    const body = groups?.["body"] ?? "";
    if (groups?.["kind"] === "yaml") {
      return [{ file: /^# (?<name>\S+)\n/u.exec(body)?.groups?.["name"] ?? "", content: body }];
    }
    return body
      .split(/^\$ /mu)
      .slice(1)
      .map((part) => {
        const [command = "", ...lines] = part.split("\n");
        return { command, output: lines.join("\n") };
      });
  });
}

/** `…` in the guide stands for whatever is there. */
function pattern(output: string): RegExp {
  const parts = output.trim().split("…");
  const escaped = parts.map((part) => part.replaceAll(/[\\^$.*+?()[\]{}|]/gu, String.raw`\$&`));
  return new RegExp(`^${escaped.join("[\\s\\S]*?")}$`, "u");
}

/** A project as a reader has it: the package among its dependencies, `cjm-ctl` in its bin folder. */
async function readersProject(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-g-"));
  const bin = join(folder, "node_modules/.bin");
  await mkdir(bin, { recursive: true });
  await symlink(ROOT, join(folder, "node_modules/cjm-substrate"));
  const script = `#!/bin/sh\nexec "${process.execPath}" "${ROOT}/dist/cli/main.js" "$@"\n`;
  await writeFile(join(bin, "cjm-ctl"), script);
  await chmod(join(bin, "cjm-ctl"), 0o755);
  return folder;
}

test("the guide's walk-through does what it says", async () => {
  const steps = stepsOf(await readFile(GUIDE, "utf8"));
  expect(steps.length).toBeGreaterThan(8);
  const folder = await readersProject();
  const path = [join(folder, "node_modules/.bin"), dirname(process.execPath)].join(delimiter);
  const env = { ...process.env, PATH: `${path}${delimiter}${process.env["PATH"]}` };
  try {
    for (const step of steps) {
      if ("file" in step) {
        await writeFile(join(folder, step.file), step.content);
      } else {
        const shell = ["-c", step.command];
        const { stdout } = await promisify(execFile)("bash", shell, { cwd: folder, env });
        expect(stdout.trim(), step.command).toMatch(pattern(step.output));
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}, 120_000);
