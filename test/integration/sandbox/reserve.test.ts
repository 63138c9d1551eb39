import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { z } from "cjm-substrate/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findProgram } from "../../../workers/sandbox/languages.ts";
import { isRunning } from "../../../workers/sandbox/process-tree.ts";
import type { runInputSchema } from "../../../workers/sandbox/schemas.ts";
import { leftovers } from "./leaks.ts";
import { Bench } from "./support.ts";

type RunInput = z.input<typeof runInputSchema>;

const FIXTURE = join(import.meta.dirname, "../../fixtures/sandbox/keep.ts");
const BACKENDS = [
  { isolation: "bubblewrap", program: "bwrap" },
  { isolation: "nsjail", program: "nsjail" },
] as const;

/** Longer than any test here: a jail that goes is ended by what the test does. */
const FOR_EVER_MS = 600_000;

/** Prints its PID namespace, and because such a number is used again, when its first process began. */
const WHICH = "readlink /proc/self/ns/pid; cut -d' ' -f22 /proc/1/stat";
const WHICH_JAIL: RunInput = { language: "bash", code: WHICH };
const nameOf = (pid: number): string => {
  const startedAt = readFileSync(`/proc/${pid}/stat`, "latin1").split(" ")[21];
  return `${readlinkSync(`/proc/${pid}/ns/pid`)}\n${startedAt}\n`;
};

for (const { isolation, program } of BACKENDS) {
  const isMissing = findProgram(program) === undefined;
  const why = isMissing ? ` (skipped: no "${program}" on PATH)` : "";

  describe.skipIf(isMissing)(`a jail kept ready in ${isolation}${why}`, () => {
    let bench: Bench;
    beforeAll(async () => {
      bench = await Bench.open({ keepReadyMs: FOR_EVER_MS });
    });
    afterAll(() => bench[Symbol.asyncDispose]());

    const run = (input: RunInput) => bench.run({ ...input, isolation });

    /** Runs twice, and says which jail waits then, and which process is its first. */
    const prepare = async (input: RunInput): Promise<{ jail: string; pid: number }> => {
      await run(input);
      await run(input);
      const pid = (await bench.workbench.reserve.ready()) ?? 0;
      return { jail: pid === 0 ? "none" : nameOf(pid), pid };
    };

    test("is given to the next run of its kind, and to that one only", async () => {
      const { jail } = await prepare(WHICH_JAIL);
      const third = await run(WHICH_JAIL);
      const fourth = await run(WHICH_JAIL);
      expect(third).toMatchObject({ status: "ok", stdout: jail });
      expect(fourth.stdout).not.toBe(third.stdout);
    });

    test("gets what the run brings: code, stdin, variables, clocks and bytes of output", async () => {
      const { jail } = await prepare(WHICH_JAIL);
      const progressed = bench.progress.length;
      const stdin = "x".repeat(300_000);
      const result = await run({
        language: "bash",
        code: `${WHICH}; cat | wc -c; echo "$V"; ulimit -t; head -c 9999 /dev/zero`,
        stdin,
        env: { V: "it's" },
        limits: { cpu_ms: 2_500, output_bytes: 1_000 },
      });
      expect(result).toMatchObject({ status: "output_limit", exit_code: 0 });
      expect(result.stdout.slice(0, 80)).toContain(`${jail}300000\nit's\n4\n`);
      expect(result.stdout).toHaveLength(1_000);
      expect(bench.progress.length).toBeGreaterThan(progressed);
    });

    test("has the limits it was set up with, counted from the gate", async () => {
      const limits = { pids: 3, memory_mb: 48, disk_mb: 8 };
      const code = `${WHICH}; sleep 0.01 & sleep 0.01 & wait`;
      const { jail } = await prepare({ language: "bash", code, limits });
      const fits = await run({ language: "bash", code, limits });
      await bench.workbench.reserve.ready();
      const tooMany = await run({
        language: "bash",
        code: "sleep 9 & sleep 9 & sleep 9 & wait",
        limits,
      });
      expect(fits).toMatchObject({ status: "ok", stdout: jail, limits });
      expect(tooMany.status).toBe("pids");
    });

    test("is not used where it is gone", async () => {
      const { jail, pid } = await prepare(WHICH_JAIL);
      process.kill(pid, "SIGKILL");
      await expect.poll(() => isRunning(pid)).toBe(false);
      const result = await run(WHICH_JAIL);
      expect(result.status).toBe("ok");
      expect(result.stdout).not.toBe(jail);
    });

    test("is neither made for other limits nor for a caller's folders", async () => {
      await bench.workbench.reserve.clear();
      await run({ ...WHICH_JAIL, limits: { pids: 11 } });
      await run({ ...WHICH_JAIL, limits: { pids: 12 } });
      expect(await bench.workbench.reserve.ready()).toBeUndefined();
      const folder = { ...WHICH_JAIL, input_dirs: { here: import.meta.dirname } };
      expect(await prepare(folder)).toMatchObject({ pid: 0 });
      expect(await prepare({ ...WHICH_JAIL, workspace: "w" })).toMatchObject({ pid: 0 });
    });

    test("is gone with a worker that is killed", async () => {
      const worker = spawn(process.execPath, [FIXTURE, isolation], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const lines: unknown[] = await once(worker.stdout, "data");
      const pid = Number(String(lines[0]));
      expect(isRunning(pid)).toBe(true);
      worker.kill("SIGKILL");
      await expect.poll(() => isRunning(pid)).toBe(false);
    });
  });
}

test("a jail that nobody takes is ended after its time, and none is left at the end", async () => {
  const bench = await Bench.open({ keepReadyMs: 1 });
  const before = await leftovers(bench.workbench);
  await bench.run(WHICH_JAIL);
  await bench.run(WHICH_JAIL);
  await expect.poll(() => bench.workbench.reserve.ready()).toBeUndefined();
  expect(await leftovers(bench.workbench)).toEqual(before);
  await bench[Symbol.asyncDispose]();
});

test("a folder of the configuration that was replaced is not shown as it was", async () => {
  await using bench = await Bench.open({ keepReadyMs: FOR_EVER_MS });
  const folder = join(bench.folder, "packages");
  const install = (answer: number): void => {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    writeFileSync(join(folder, "extra.py"), `ANSWER = ${answer}`);
  };
  install(1);
  await using other = await Bench.open({
    keepReadyMs: FOR_EVER_MS,
    packages: { python: [folder], node: [] },
  });
  const code = "import extra; print(extra.ANSWER)";
  await other.run({ code });
  await other.run({ code });
  await other.workbench.reserve.ready();
  install(2);
  expect(await other.run({ code })).toMatchObject({ status: "ok", stdout: "2\n" });
});
