/**
 * `npm run bench` lists the benchmarks, `npm run bench -- NAME [arguments]` runs one and
 * `npm run bench -- all` each of them. What it prints, and its numbers, go to `bench/results/` too.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

interface Benchmark {
  readonly what: string;
  /** Below this folder; a `.py` file is run by `CJM_BENCH_PYTHON`. */
  readonly file: string;
  readonly args?: readonly string[];
}

const BENCHMARKS: Readonly<Record<string, Benchmark>> = {
  queue: { file: "queue.ts", what: "durable no-op jobs, latency, chain, fan-out, pending scale" },
  jobs: { file: "peers/jobs.ts", what: "durable no-op jobs beside BullMQ, DBOS, p-queue" },
  calls: { file: "peers/calls.ts", what: "warm calls beside a bare echo, Ray, piscina" },
  "warm-call": { file: "warm-call.ts", what: "warm calls of both SDKs beside bare echoes" },
  "worker-start": {
    file: "worker-start.ts",
    what: "start and memory of both SDKs beside bare listeners",
  },
  journal: { file: "journal.ts", what: "rows a second through the store and through bare SQLite" },
  simulate: { file: "simulate.ts", what: "the scheduler with 10^6 jobs on 1,000 virtual GPUs" },
  logs: { file: "logs.ts", what: "attributed log records" },
  "log-flood": { file: "log-flood.ts", what: "log records a second from four tools" },
  "large-result": { file: "large-result.ts", what: "a gigabyte through three tools by reference" },
  monitor: { file: "monitor.ts", what: "what sampling costs" },
  sandbox: { file: "sandbox.ts", what: "jails against plain processes" },
  inference: { file: "inference.ts", what: "the engine llama-cpp against bare node-llama-cpp" },
  "inference-transformers": {
    file: "inference-transformers.py",
    what: "the transformers engine against a bare generate",
  },
  trainer: { file: "trainer.py", what: "training against a plain transformers and peft script" },
  "merge-kernel": { file: "merge-kernel.ts", what: "adapter merging, the arithmetic" },
  "merge-files": { file: "merge-files.ts", what: "adapter merging, whole files" },
};

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const [name, ...args] = process.argv.slice(2);

if (name === undefined) {
  for (const [key, { what }] of Object.entries(BENCHMARKS))
    console.log(`${key.padEnd(14)} ${what}`);
} else {
  for (const key of name === "all" ? Object.keys(BENCHMARKS) : [name]) {
    const benchmark = BENCHMARKS[key];
    if (benchmark === undefined) {
      console.error(`There is no benchmark "${key}"; npm run bench lists them`);
      process.exitCode = 2;
    } else if ((await run(key, benchmark)) !== 0) {
      process.exitCode = 1;
    }
  }
}

/** @returns the exit status of the benchmark. */
async function run(key: string, benchmark: Benchmark): Promise<number> {
  const { file } = benchmark;
  const script = here(file);
  const own = [...(benchmark.args ?? []), ...args];
  const isPython = file.endsWith(".py");
  const program = isPython ? (process.env["CJM_BENCH_PYTHON"] ?? "python3") : process.execPath;
  const argv = isPython ? [script, ...own] : ["-C", "@cjm/source", script, ...own];
  const command = [isPython ? "python" : "node", `bench/${file}`, ...own].join(" ");
  await mkdir(here("results/"), { recursive: true });
  const numbers = here(`results/${key}.rows.json`);
  await rm(numbers, { force: true });
  console.log(`# ${key}: ${benchmark.what}`);
  const child = spawn(program, argv, {
    stdio: ["inherit", "pipe", "inherit"],
    env: { ...process.env, CJM_BENCH_OUT: numbers },
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    process.stdout.write(text);
  });
  const status = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      resolve(code ?? 1);
    });
  });
  const rows: unknown = existsSync(numbers) ? JSON.parse(await readFile(numbers, "utf8")) : null;
  await rm(numbers, { force: true });
  const result = { name: key, command, status, result: rows, output: output.split("\n") };
  await writeFile(here(`results/${key}.json`), `${JSON.stringify(result, null, 2)}\n`);
  return status;
}
