import { execFile, spawn } from "node:child_process";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { runOutputSchema, type RunOutput } from "../../../workers/sandbox/schemas.ts";

const run = promisify(execFile);
const FIXTURES = join(import.meta.dirname, "../../fixtures/sandbox");
const USER = 23_456;

/** The host's cage: how worker processes are started where a PID namespace can be made. */
const INIT =
  'trap : TERM INT HUP; "$@" & while :; do wait $!; r=$?; kill -0 $! 2>/dev/null || exit $r; done';
const cage = (...user: string[]): string[] => [
  ..."setpriv --pdeathsig KILL -- unshare".split(" "),
  ...user,
  ..."--pid --fork --kill-child --mount-proc -- sh -c".split(" "),
  INIT,
  "init",
];
const asUser = ["setpriv", `--reuid=${USER}`, `--regid=${USER}`, "--clear-groups", "--"];

const isRoot = process.geteuid?.() === 0;
const isReadableByOthers = [FIXTURES, process.execPath].every((path) =>
  path
    .split("/")
    .map((_, index, all) => all.slice(0, index + 1).join("/") || "/")
    .every((part) => (statSync(part).mode & 0o005) === 0o005),
);

const INPUTS = [
  { language: "bash", code: "id -u; cat /dev/stdin", stdin: "in" },
  { language: "bash", code: "exit 137" },
  { language: "bash", code: "kill -9 $$" },
  { language: "bash", code: "while :; do sleep 9 & done", limits: { pids: 20, wall_ms: 5_000 } },
  { language: "bash", code: "sleep 60", limits: { wall_ms: 200 } },
  {
    language: "bash",
    code: "x=$(head -c 200000000 /dev/zero | tr '\\0' x)",
    limits: { memory_mb: 48 },
  },
  { language: "bash", code: "echo x > out", collect: ["out"] },
  { language: "bash", code: "head -c 20000000 /dev/zero > big", limits: { disk_mb: 4 } },
];
const STATUSES = ["ok", "nonzero", "signal", "pids", "wall_timeout", "oom", "ok", "disk_limit"];

async function runAs(prefix: readonly string[], inputs: readonly unknown[]): Promise<RunOutput[]> {
  const script = join(FIXTURES, "run-inputs.ts");
  const words = [...prefix, process.execPath, script, JSON.stringify(inputs)];
  const { stdout } = await run("env", words, {
    env: { PATH: process.env["PATH"], HOME: "/tmp", NODE_NO_WARNINGS: "1" },
    cwd: "/",
  });
  return runOutputSchema.array().parse(JSON.parse(stdout));
}

const PLACES = [
  { name: "in the host's cage", prefix: isRoot ? cage() : cage("--user", "--map-current-user") },
  { name: "as an ordinary user", prefix: asUser, needsRoot: true },
  {
    name: "as an ordinary user in the host's cage",
    prefix: [...asUser, ...cage("--user", "--map-current-user")],
    needsRoot: true,
  },
];

describe("jails", () => {
  test.for(PLACES)("work $name", async ({ prefix, needsRoot = false }, { skip }) => {
    if (needsRoot && !isRoot) skip("only root can become another user");
    if (needsRoot && !isReadableByOthers) skip("another user cannot read this checkout");
    const results = await runAs(prefix, INPUTS);
    expect(results.map(({ status }) => status)).toEqual(STATUSES);
    expect(results[0]?.stdout).toBe("65534\nin");
    expect(Object.keys(results[6]?.files ?? {})).toEqual(["out"]);
  });

  test("end with the worker that is killed", async () => {
    const seconds = `7${process.pid}`;
    const worker = spawn(process.execPath, [join(FIXTURES, "hang.ts"), seconds], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    await once(worker.stdout, "data");
    await expect.poll(() => sleepers(seconds)).toBe(2);
    worker.kill("SIGKILL");
    await expect.poll(() => sleepers(seconds)).toBe(0);
  });
});

/** Processes that sleep for just that long. */
function sleepers(seconds: string): number {
  return readdirSync("/proc").filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1") === `sleep\0${seconds}\0`;
    } catch {
      return false;
    }
  }).length;
}
