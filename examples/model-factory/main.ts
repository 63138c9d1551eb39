/**
 * The model factory: makes the base model, then runs composition.yaml. What is given on the command
 * line goes to `cjm-ctl run`, such as `--json` or `--set samples=8`.
 *
 * `--set model=<folder>` takes another base; `--set device=cuda` a GPU. Where PyTorch's environments
 * cannot be made, examples/grade-programs is run instead, which needs none.
 */
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { z } from "cjm-substrate/worker";

const HERE = import.meta.dirname;
const PACKAGE = dirname(createRequire(import.meta.url).resolve("cjm-substrate/package.json"));
const CTL = join(PACKAGE, "dist/cli/main.js");
const GRADE = "examples/grade-programs/composition.yaml";

const manifestSchema = z.object({ install: z.object({ python_path: z.string() }) });
const interpreterOf = (text: string): string =>
  manifestSchema.parse(JSON.parse(text)).install.python_path;

interface Ended {
  readonly code: number;
  readonly stdout: string;
}

/** Runs a program to its end; what it prints to stdout is shown, or kept and shown as progress. */
function run(file: string, args: readonly string[], kept = false): Promise<Ended> {
  const { promise, resolve: done, reject } = Promise.withResolvers<Ended>();
  const child = spawn(file, args, { stdio: ["inherit", kept ? "pipe" : "inherit", "inherit"] });
  const chunks: string[] = [];
  child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    chunks.push(chunk);
    process.stderr.write(chunk);
  });
  child.on("error", reject);
  child.on("close", (code) => {
    done({ code: code ?? 1, stdout: chunks.join("") });
  });
  return promise;
}

const ctl = (...args: readonly string[]): Promise<Ended> => run(process.execPath, [CTL, ...args]);

/** The folder of the base model, trained unless it is there. */
async function makeBase(dataDir: string): Promise<string> {
  const manifest = await readFile(join(dataDir, "manifests/qlora-trainer.json"), "utf8");
  const script = ["-W", "ignore", join(HERE, "make_base.py"), join(dataDir, "model-factory")];
  const { code, stdout } = await run(interpreterOf(manifest), script, true);
  if (code !== 0) throw new Error(`make_base.py ended with ${code}`);
  return stdout.trimEnd().split("\n").at(-1) ?? "";
}

/** Makes the environments of a capabilities file; false if that fails. */
async function install(file: string): Promise<boolean> {
  const words = [CTL, "install-all", "--capabilities", join(PACKAGE, file)];
  return (await run(process.execPath, words, true)).code === 0;
}

async function factory(given: readonly string[]): Promise<number> {
  const dataDir = resolve(process.env["CJM_DATA_DIR"] ?? ".cjm");
  const hasModel = given.some((word) => word.startsWith("model="));
  const inputs = {
    numbers: join(HERE, "tasks/numbers.jsonl"),
    lists: join(HERE, "tasks/lists.jsonl"),
    ...(hasModel ? {} : { model: await makeBase(dataDir) }),
  };
  const settings = Object.entries(inputs).flatMap(([name, value]) => ["--set", `${name}=${value}`]);
  return (await ctl("run", join(HERE, "composition.yaml"), ...settings, ...given)).code;
}

const given = process.argv.slice(2);
if (!(await install("capabilities.yaml"))) {
  process.exitCode = 1;
} else if (await install("capabilities.ml.yaml")) {
  process.exitCode = await factory(given);
} else {
  console.error("The environments with PyTorch could not be made; this is the demo without them.");
  process.exitCode = (await ctl("run", join(PACKAGE, GRADE), ...given)).code;
}
