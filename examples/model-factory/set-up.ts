import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { z } from "cjm-substrate/worker";

/** The folder of the package `cjm-substrate`. */
export const PACKAGE = dirname(
  createRequire(import.meta.url).resolve("cjm-substrate/package.json"),
);
const CTL = join(PACKAGE, "dist/cli/main.js");
/** Options of every `cjm-ctl` command that take a value. */
const EVERYWHERE = new Set(["--data-dir", "--cjm-config", "--conda-prefix", "--conda-type"]);

const manifestSchema = z.object({ install: z.object({ python_path: z.string() }) });
const statusSchema = z.object({ data_dir: z.string() });

export interface Ended {
  readonly code: number;
  readonly stdout: string;
}

/** What was given on the command line of an example. */
export interface Words {
  /** `--seed N`; 0 unless given. */
  readonly seed: number;
  /** Options that every `cjm-ctl` command takes. */
  readonly everywhere: readonly string[];
  /** What is for `cjm-ctl run`. */
  readonly rest: readonly string[];
}

/** @throws {TypeError} for a seed that is no whole number. */
export function wordsOf(given: readonly string[]): Words {
  const [everywhere, rest] = [new Array<string>(), new Array<string>()];
  let seed = 0;
  for (let at = 0; at < given.length; at += 1) {
    const [name = "", ...parts] = (given[at] ?? "").split("=");
    const isSeed = name === "--seed";
    if (!isSeed && !EVERYWHERE.has(name)) {
      rest.push(given[at] ?? "");
      continue;
    }
    const value = parts.length > 0 ? parts.join("=") : (given[(at += 1)] ?? "");
    if (isSeed) seed = seedOf(value);
    else everywhere.push(name, value);
  }
  return { seed, everywhere, rest };
}

function seedOf(text: string): number {
  if (!/^\d{1,9}$/u.test(text)) throw new TypeError("--seed: a whole number from 0");
  return Number(text);
}

/**
 * Runs a program to its end.
 *
 * @param show what it prints to stdout is shown as it is, shown as progress and kept, or only kept
 */
function run(
  file: string,
  args: readonly string[],
  show: "as it is" | "as progress" | "not",
): Promise<Ended> {
  const { promise, resolve: done, reject } = Promise.withResolvers<Ended>();
  const stdout = show === "as it is" ? "inherit" : "pipe";
  const child = spawn(file, args, { stdio: ["inherit", stdout, "inherit"] });
  const chunks: string[] = [];
  child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    chunks.push(chunk);
    if (show === "as progress") process.stderr.write(chunk);
  });
  child.on("error", reject);
  child.on("close", (code) => {
    done({ code: code ?? 1, stdout: chunks.join("") });
  });
  return promise;
}

/** `cjm-ctl` with what is given everywhere, its output shown. */
export function ctl({ everywhere }: Words, ...args: readonly string[]): Promise<Ended> {
  return run(process.execPath, [CTL, ...args, ...everywhere], "as it is");
}

/** The JSON document that `cjm-ctl … --json` prints, and how it ended. */
export async function ctlJson(
  { everywhere }: Words,
  ...args: readonly string[]
): Promise<{ readonly code: number; readonly value: unknown }> {
  const words = [CTL, ...args, "--json", ...everywhere];
  const { code, stdout } = await run(process.execPath, words, "not");
  return { code, value: stdout === "" ? undefined : JSON.parse(stdout) };
}

/** Makes the environments of a capabilities file of the package; false if that fails. */
export async function install({ everywhere }: Words, file: string): Promise<boolean> {
  const words = [CTL, "install-all", "--capabilities", join(PACKAGE, file), ...everywhere];
  return (await run(process.execPath, words, "as progress")).code === 0;
}

/** The tiny base model as inputs of a composition. */
export interface Base {
  readonly model: string;
  /** So small a model learns at a rate that would ruin a large one. */
  readonly learning_rate: number;
}

/**
 * The tiny base model, trained unless it is there.
 *
 * @throws {Error} if it cannot be trained.
 */
export async function makeBase(words: Words): Promise<Base> {
  const { data_dir: dataDir } = statusSchema.parse((await ctlJson(words, "status")).value);
  const manifest = await readFile(join(dataDir, "manifests/qlora-trainer.json"), "utf8");
  const { install: environment } = manifestSchema.parse(JSON.parse(manifest));
  const script = join(import.meta.dirname, "make_base.py");
  const args = [script, join(dataDir, "model-factory"), "--seed", String(words.seed)];
  const python = ["-B", "-W", "ignore", ...args];
  const { code, stdout } = await run(environment.python_path, python, "as progress");
  if (code !== 0) throw new Error(`make_base.py ended with ${code}`);
  return { model: stdout.trimEnd().split("\n").at(-1) ?? "", learning_rate: 0.003 };
}

/** `--set name=value` for each. */
export function settings(inputs: Readonly<Record<string, string | number>>): readonly string[] {
  return Object.entries(inputs).flatMap(([name, value]) => ["--set", `${name}=${value}`]);
}
