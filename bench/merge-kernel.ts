/**
 * TIES on A/B tensors in memory (`compat: peft`, density 0.5): 3 inputs of 24 tensors of 1,048,576
 * float32, on one thread, on two, and by the real peft on the same tensors.
 *
 *   node bench/merge-kernel.ts [rounds] [python with peft]
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { summary } from "./merge-statistics.ts";

const TENSORS = 24;
const LENGTH = 1 << 20;
const INPUTS = 3;

const rounds = Number(process.argv[2] ?? 7);
const python = process.argv[3];

const inputs = new SharedArrayBuffer(INPUTS * TENSORS * LENGTH * 4);
const output = new SharedArrayBuffer(TENSORS * LENGTH * 4);
const next = new SharedArrayBuffer(4);
fill(new Float32Array(inputs));

/** Sums of uniform numbers: near enough to normal, and quick. */
function fill(values: Float32Array): void {
  let state = 1;
  for (let i = 0; i < values.length; i += 1) {
    let sum = 0;
    for (let k = 0; k < 3; k += 1) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      sum += state / 2 ** 31 - 1;
    }
    values[i] = sum * 0.02;
  }
}

const workers = [0, 1].map(() => {
  const workerData = { inputs, output, next, tensors: TENSORS, length: LENGTH };
  return new Worker(new URL("merge-kernel-thread.ts", import.meta.url), { workerData });
});

async function ours(threads: number): Promise<number> {
  new Int32Array(next)[0] = 0;
  const started = performance.now();
  await Promise.all(
    workers.slice(0, threads).map(async (worker) => {
      const done = Promise.withResolvers<void>();
      worker.once("message", () => done.resolve());
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
      worker.postMessage("go");
      await done.promise;
    }),
  );
  return (performance.now() - started) / 1000;
}

interface Peer {
  run(): Promise<number>;
  end(): void;
}

function startPeft(interpreter: string): Peer {
  const script = fileURLToPath(new URL("merge_peft.py", import.meta.url));
  const args = [script, String(INPUTS), String(TENSORS), String(LENGTH)];
  const child = spawn(interpreter, args, { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.write(new Uint8Array(inputs));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  return {
    async run() {
      child.stdin.write("g");
      return Number((await lines.next()).value);
    },
    end: () => child.stdin.end(),
  };
}

const peft = python === undefined ? undefined : startPeft(python);
const parameters = INPUTS * TENSORS * LENGTH;
await ours(2);
await peft?.run();
const times = { one: [] as number[], two: [] as number[], peft: [] as number[] };
for (let round = 0; round < rounds; round += 1) {
  times.one.push(await ours(1));
  times.two.push(await ours(2));
  if (peft !== undefined) times.peft.push(await peft.run());
}
peft?.end();
for (const worker of workers) await worker.terminate();

const rate = (seconds: readonly number[]): number[] => seconds.map((s) => parameters / s / 1e6);
const ratio = (a: readonly number[], b: readonly number[]): number[] =>
  a.map((s, i) => s / (b[i] ?? NaN));
console.log(`Mparam/s, one thread   ${summary(rate(times.one))}`);
console.log(`Mparam/s, two threads  ${summary(rate(times.two))}`);
console.log(`two threads / one      ${summary(ratio(times.one, times.two))}`);
if (times.peft.length > 0) {
  console.log(`Mparam/s, peft         ${summary(rate(times.peft))}`);
  console.log(`one thread / peft      ${summary(ratio(times.peft, times.one))}`);
  console.log(`two threads / peft     ${summary(ratio(times.peft, times.two))}`);
}
