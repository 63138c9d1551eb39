/**
 * A warm call beside what people would take instead, in turn, in one run:
 *
 *     npm run build && npm run bench -- calls [--rounds 9] [--python python3]
 *
 * piscina passes a value to a thread of the same process: no isolation, and so no socket. Ray calls an
 * actor in a process of its own; `CJM_RAY_PYTHON` names an interpreter with `pip install ray`.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Piscina } from "piscina";
import { Absent, type Numbers, quantile, Report } from "../report.ts";
import { openSubjects } from "../worker-subjects.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "9" },
    python: { type: "string", default: "python3" },
  },
});
const SIZES = [
  { row: "warm call, 200 B", bytes: 200, calls: 300 },
  { row: "warm call, 1 MB", bytes: 1_000_000, calls: 20 },
] as const;
const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** One call that echoes a value. */
type Call = (value: string) => Promise<unknown>;

async function timed(call: Call, { bytes, calls }: (typeof SIZES)[number]): Promise<Numbers> {
  const value = "x".repeat(bytes);
  const taken: number[] = [];
  for (let n = -10; n < calls; n += 1) {
    const start = performance.now();
    await call(value);
    if (n >= 0) taken.push(performance.now() - start);
  }
  return { "ms p50": quantile(taken, 0.5) };
}

/** Ray's own process measures itself: what comes here is a median. */
class Ray {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcess, lines: AsyncIterator<string>) {
    this.#child = child;
    this.#lines = lines;
  }

  /** @throws {Absent} without Ray. */
  static async start(): Promise<Ray> {
    const python = process.env["CJM_RAY_PYTHON"] ?? "python3";
    const child = spawn(python, [at("ray_calls.py")], { stdio: ["pipe", "pipe", "ignore"] });
    child.on("error", () => child.kill());
    const ray = new Ray(child, createInterface({ input: child.stdout })[Symbol.asyncIterator]());
    const ready = await ray.#lines.next();
    if (ready.done !== true) return ray;
    throw new Absent(`${python} -c "import ray"`, "it ended before it was ready");
  }

  async measure({ bytes, calls }: (typeof SIZES)[number]): Promise<Numbers> {
    this.#child.stdin?.write(`${JSON.stringify({ bytes, calls })}\n`);
    const line = await this.#lines.next();
    return { "ms p50": Number(line.value) };
  }

  stop(): void {
    this.#child.stdin?.end();
  }
}

using report = new Report();
await using opened = await openSubjects(values.python);
await using pool = new Piscina({ filename: at("echo.js"), maxThreads: 1 });
const ray = await Ray.start().catch((error: unknown) => error);
const subject = (name: string): Call => {
  const found = opened.subjects.find((one) => one.name === name);
  if (found === undefined) throw new TypeError(`no subject "${name}"`);
  return (value) => found.call(value);
};
const limit = { "ms p50": 1 / 1.5 };
for (const size of SIZES) {
  const by = (call: Call) => (): Promise<Numbers> => timed(call, size);
  const peers = {
    "bare undici and node:http": by(subject("bare node:http")),
    piscina: by((value) => pool.run(value)),
    "Ray actor": async () => {
      if (ray instanceof Ray) return await ray.measure(size);
      throw ray;
    },
  };
  const goals = { "bare undici and node:http": limit };
  const what = { rounds: Number(values.rounds), metrics: { "ms p50": "less" } as const, goals };
  const typescript = { "TypeScript worker": by(subject("TypeScript worker")) };
  await report.compare({ row: size.row, ...what }, { ...typescript, ...peers });
  const python = { "Python worker": by(subject("Python worker")) };
  const bare = { "bare Python socket": by(subject("bare Python socket")) };
  await report.compare({ row: size.row, ...what }, { ...python, ...bare, ...peers });
}
if (ray instanceof Ray) ray.stop();
