import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { lostGpu } from "../gpu.ts";
import type { Reading } from "../model.ts";
import { parseSmiReport, type SmiReport } from "./nvidia-smi-report.ts";
import type { DeviceSource, OpenResult } from "./source.ts";

/** Each report costs the program a full query of every device. */
const PERIOD_MS = 500;
/** Drivers without persistence wake the GPU for the first report. */
const FIRST_REPORT_MS = 15_000;
const STALE_MS = 10 * PERIOD_MS;
const RESTART_MS = 2_000;
const END = "</nvidia_smi_log>";
/** Sixteen GPUs with hundreds of processes stay far below. */
const MAX_REPORT_CHARS = 8 * 1024 * 1024;

/** Cuts a stream of documents into single ones, in bounded memory. */
export class ReportSplitter {
  #pending = "";

  /** Documents that `text` completes; text that grows without an end is dropped. */
  push(text: string): string[] {
    const parts = (this.#pending + text).split(END);
    this.#pending = parts.pop() ?? "";
    if (this.#pending.length > MAX_REPORT_CHARS) this.#pending = "";
    return parts.map((part) => `${part}${END}`);
  }

  /** What came after the last document: an error message, or half of the next one. */
  get rest(): string {
    return this.#pending;
  }
}

/**
 * One long-lived `nvidia-smi` that reports again and again: the library may be missing where the
 * program works (containers, WSL2), and starting it for each question costs hundreds of milliseconds.
 */
export class NvidiaSmiSource implements DeviceSource {
  readonly name = "nvidia-smi";
  readonly #program: string;
  readonly #now: () => number;
  #child: ChildProcess | undefined;
  #latest: { readonly report: SmiReport; readonly atMs: number } | undefined;
  #problem = "no report yet";
  #startedMs = 0;
  #arrived = Promise.withResolvers<void>();

  private constructor(program: string, now: () => number) {
    this.#program = program;
    this.#now = now;
  }

  static async open(program: string, now = (): number => performance.now()): Promise<OpenResult> {
    const source = new NvidiaSmiSource(program, now);
    source.#start();
    const limit = setTimeout(() => source.#arrived.resolve(), FIRST_REPORT_MS);
    await source.#arrived.promise;
    clearTimeout(limit);
    if (source.#latest !== undefined && source.#latest.report.gpus.length > 0) return source;
    const problem = source.#latest === undefined ? source.#problem : "it lists no GPU";
    await source[Symbol.asyncDispose]();
    return `nvidia-smi: ${problem}`;
  }

  read(): Promise<Reading> {
    const nowMs = this.#now();
    if (this.#child === undefined && nowMs - this.#startedMs >= RESTART_MS) this.#start();
    if (this.#latest === undefined) return Promise.resolve({ gpus: [], driver: null, notes: [] });
    const { report, atMs } = this.#latest;
    const ageMs = Math.round(nowMs - atMs);
    const notes = [`nvidia-smi reports every ${PERIOD_MS} ms; this is ${ageMs} ms old`];
    if (ageMs <= STALE_MS) return Promise.resolve({ ...report, notes });
    const reason = `nvidia-smi has been silent for ${ageMs} ms: ${this.#problem}`;
    const gpus = report.gpus.map((gpu) => lostGpu(gpu, reason));
    return Promise.resolve({ gpus, driver: report.driver, notes: [reason] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    this.#startedMs = Infinity;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }

  #start(): void {
    this.#startedMs = this.#now();
    const child = spawn(this.#program, ["-q", "-x", `--loop-ms=${PERIOD_MS}`], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    const splitter = new ReportSplitter();
    let complaint = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      for (const document of splitter.push(text)) this.#take(document);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      complaint = (complaint + text).slice(-500);
    });
    child.once("error", (error) => this.#ended(child, error.message));
    child.once("close", (code) => {
      const said = `${splitter.rest.trim()} ${complaint.trim()}`.trim().slice(0, 300);
      this.#ended(child, said === "" ? `exited with code ${code}` : said);
    });
  }

  #take(document: string): void {
    const report = parseSmiReport(document);
    if (typeof report === "string") {
      this.#problem = report;
      return;
    }
    this.#latest = { report, atMs: this.#now() };
    this.#arrived.resolve();
  }

  #ended(child: ChildProcess, problem: string): void {
    if (this.#child === child) this.#child = undefined;
    this.#problem = problem;
    this.#arrived.resolve();
  }
}
