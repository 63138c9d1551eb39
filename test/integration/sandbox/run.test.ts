import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Bench } from "./support.ts";

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open();
});
afterAll(() => bench[Symbol.asyncDispose]());

describe("run", () => {
  test("runs Python and returns what it printed", async () => {
    const result = await bench.run({ code: "print('hello')" });
    expect(result).toMatchObject({ status: "ok", exit_code: 0, stdout: "hello\n", stderr: "" });
  });

  test("runs JavaScript, as CommonJS and as a module", async () => {
    const common = await bench.run({
      language: "javascript",
      code: "console.log(require('node:os').EOL.length, process.version)",
    });
    const module = await bench.run({
      language: "node",
      code: "import { sep } from 'node:path'; console.log(await Promise.resolve(sep))",
    });
    expect(common).toMatchObject({ status: "ok", stdout: `1 ${process.version}\n` });
    expect(module).toMatchObject({ status: "ok", stdout: "/\n" });
  });

  test("runs bash and any command", async () => {
    const bash = await bench.run({ language: "bash", code: "echo $((6 * 7)); exit 3" });
    const command = await bench.run({ language: "command", argv: ["id", "-u"] });
    expect(bash).toMatchObject({ status: "nonzero", exit_code: 3, stdout: "42\n" });
    expect(command).toMatchObject({ status: "ok", stdout: "65534\n" });
  });

  test("hands a JSON value to the program on stdin and as input.json", async () => {
    const result = await bench.run({
      code: "import json,sys; a=json.load(sys.stdin); b=json.load(open('input.json')); print(a == b, a['x'][1])",
      input: { x: [1, "two"] },
    });
    expect(result).toMatchObject({ status: "ok", stdout: "True two\n" });
  });

  test("hands over arguments and variables as they are", async () => {
    const strange = 'a\'b "c" $HOME `x`\n\\n ü';
    const result = await bench.run({
      code: "import os, sys; print(sys.argv[1] == os.environ['V'], repr(sys.argv[1]), os.environ['PATH'])",
      argv: [strange],
      env: { V: strange, PATH: "/nowhere" },
    });
    expect(result).toMatchObject({ status: "ok", stderr: "" });
    expect(result.stdout).toContain("True");
    expect(result.stdout).toContain("/nowhere");
  });

  test("lets a program open its streams by name", async () => {
    const result = await bench.run({
      language: "bash",
      code: "cat /dev/stdin > /dev/stdout; echo err > /dev/stderr",
      stdin: "in\n",
    });
    expect(result).toMatchObject({ status: "ok", stdout: "in\n", stderr: "err\n" });
  });

  test("reads what a program with unittest classes printed about its tests", async () => {
    const head = "import unittest\nclass T(unittest.TestCase):\n  def test_a(self): pass\n";
    const failing = `${head}  def test_b(self): self.fail()\nunittest.main()`;
    const tested = await bench.run({ code: failing });
    const silent = await bench.run({ code: head });
    expect(tested).toMatchObject({ status: "nonzero", printed_tests: { passed: 1, total: 2 } });
    expect(tested.printed_tests?.failed).toMatch(/^FAIL: test_b/u);
    expect(silent).not.toHaveProperty("printed_tests");
  });

  test("collects named files by reference", async () => {
    const result = await bench.run({
      code: "open('out.txt','w').write(open('data/in.txt').read().upper())",
      files: { "data/in.txt": "abc" },
      collect: ["out.txt", "missing.txt"],
    });
    const path = result.files["out.txt"]?.data.path ?? "";
    expect(readFileSync(path, "utf8")).toBe("ABC");
    expect(result.files_refused).toEqual({ "missing.txt": "there is no such file" });
  });

  test("ends a program that runs too long and keeps what it printed", async () => {
    const result = await bench.run({
      code: "import time\nprint('start', flush=True)\ntime.sleep(60)",
      limits: { wall_ms: 300 },
    });
    expect(result).toMatchObject({ status: "wall_timeout", stdout: "start\n", is_timed_out: true });
    expect(result.exit_code).toBeNull();
  });

  test("ends a program that uses too much memory", async () => {
    const result = await bench.run({
      code: "x = bytearray(300_000_000)\nprint(len(x))",
      limits: { memory_mb: 64 },
    });
    expect(result).toMatchObject({ status: "oom", stdout: "" });
  });

  test("keeps the first bytes of a program that prints without end", async () => {
    const result = await bench.run({
      code: "while True: print('x' * 100)",
      limits: { wall_ms: 400, output_bytes: 1_000 },
    });
    expect(result).toMatchObject({ status: "output_limit", stdout_truncated: true });
    expect(result.stdout).toHaveLength(1_000);
  });

  test("tells an exit code from a signal", async () => {
    const exit = await bench.run({ code: "import sys; sys.exit(137)" });
    const signal = await bench.run({ code: "import os; os.kill(os.getpid(), 9)" });
    expect(exit).toMatchObject({ status: "nonzero", exit_code: 137, signal: null });
    expect(signal).toMatchObject({ status: "signal", exit_code: null, signal: "SIGKILL" });
  });

  test("runs several jails at once", async () => {
    const results = await Promise.all(
      [1, 2, 3, 4].map((n) => bench.run({ code: `import time; time.sleep(0.2); print(${n})` })),
    );
    expect(results.map(({ stdout }) => stdout)).toEqual(["1\n", "2\n", "3\n", "4\n"]);
  });
});

describe("where a run happens", () => {
  test("is an empty folder, wherever the interpreter of this machine lies", async () => {
    const result = await bench.run({
      language: "node",
      code: "console.log(require('node:fs').readdirSync('.').join())",
    });
    expect(result).toMatchObject({ status: "ok", stdout: "main.js\n" });
  });

  test("lets guests import the packages of the configuration, read-only", async () => {
    const folder = join(bench.folder, "packages");
    mkdirSync(folder);
    writeFileSync(join(folder, "extra.py"), "ANSWER = 42");
    await using other = await Bench.open({ packages: { python: [folder], node: [] } });
    const result = await other.run({ code: "import extra; print(extra.ANSWER)" });
    expect(result).toMatchObject({ status: "ok", stdout: "42\n" });
  });

  test("keeps a named workspace between runs and nothing else", async () => {
    await bench.run({
      code: "open('kept','w').write('1'); open('/tmp/gone','w')",
      workspace: "w1",
    });
    const second = await bench.run({
      code: "import os; print(open('kept').read(), os.path.exists('/tmp/gone'))",
      workspace: "w1",
    });
    const other = await bench.run({ code: "import os; print(os.listdir('.'))", workspace: "w2" });
    expect(second).toMatchObject({ status: "ok", stdout: "1 False\n" });
    expect(other).toMatchObject({ status: "ok", stdout: "['main.py']\n" });
  });

  test("follows no link that an earlier run left in a workspace", async () => {
    await bench.run({
      code: "import os; os.symlink('/etc', 'd'); os.symlink('/etc/hostname', 'f')",
      workspace: "w3",
    });
    const through = bench.run({ code: "1", workspace: "w3", files: { "d/evil": "x" } });
    await expect(through).rejects.toMatchObject({ code: "CAPABILITY_INPUT" });
    const over = bench.run({ code: "1", workspace: "w3", files: { f: "x" } });
    await expect(over).rejects.toMatchObject({ code: "CAPABILITY_INPUT" });
  });

  test("limits what a workspace holds", async () => {
    const result = await bench.run({
      code: "import os\nfor i in range(40): open(f'f{i}', 'wb').write(os.urandom(1 << 20))",
      workspace: "w4",
      limits: { disk_mb: 8 },
    });
    expect(result.status).toBe("disk_limit");
  });

  test("shows input folders read-only", async () => {
    const result = await bench.run({
      language: "bash",
      code: "cat /input/data/run.test.ts | head -c 6; touch /input/data/x 2>/dev/null || echo ' read-only'",
      input_dirs: { data: import.meta.dirname },
    });
    expect(result).toMatchObject({ status: "ok", stdout: "import read-only\n" });
  });

  test("runs without isolation only when that is asked for by name, and says so", async () => {
    const result = await bench.run({ code: "print(open('main.py').read())", isolation: "none" });
    expect(result).toMatchObject({
      status: "ok",
      isolation: { backend: "none", not_enforced: ["files", "network", "system calls"] },
    });
  });

  test("ends the whole tree of a run without isolation", async () => {
    const result = await bench.run({
      language: "bash",
      code: "setsid sleep 61.5 & sleep 61.5",
      isolation: "none",
      limits: { wall_ms: 300 },
    });
    const left = await bench.run({
      language: "bash",
      code: "grep -al 61[.]5 /proc/[0-9]*/cmdline | wc -l",
      isolation: "none",
    });
    expect(result.status).toBe("wall_timeout");
    expect(left.stdout).toBe("0\n");
  });

  test("says that a program is not there, which exit code 127 does not", async () => {
    const missing = await bench.run({ language: "command", argv: ["no-such-program"] });
    const twin = await bench.run({ language: "bash", code: "no-such-program; exit 127" });
    expect(missing).toMatchObject({
      status: "setup_error",
      message: 'there is no program "no-such-program" in the jail',
      exit_code: null,
      signal: null,
    });
    expect(twin).toMatchObject({ status: "nonzero", exit_code: 127 });
  });

  test("returns long output as a file beside its beginning", async () => {
    const result = await bench.run({
      code: "print('x' * 1000000)",
      limits: { output_bytes: 2_000_000 },
    });
    expect(result.stdout).toHaveLength(262_144);
    expect(result.stdout_file?.data.size).toBe(1_000_001);
    expect(result).toMatchObject({ status: "ok", stdout_truncated: false });
  });
});

describe("cancel", () => {
  test("ends the jail's whole tree at once", async () => {
    const controller = new AbortController();
    const running = bench.run(
      { language: "bash", code: "setsid sleep 62.5 & echo up; sleep 62.5" },
      controller.signal,
    );
    await expect.poll(() => bench.progress.includes("stdout: up")).toBe(true);
    controller.abort(new Error("stop"));
    await expect(running).rejects.toThrow("stop");
    const left = await bench.run({
      language: "bash",
      code: "grep -al 62[.]5 /proc/[0-9]*/cmdline | wc -l",
      isolation: "none",
    });
    expect(left.stdout).toBe("0\n");
  });
});

describe("limits", () => {
  test("are reported as the kernel has them, and hold in the guest", async () => {
    const result = await bench.run({
      language: "bash",
      code: "ulimit -c; ulimit -t; ulimit -n",
      limits: { memory_mb: 100, pids: 20, cpu_ms: 3_500, disk_mb: 16 },
    });
    expect(result).toMatchObject({ status: "ok", stdout: "0\n5\n1024\n" });
    expect(result.limits).toEqual({
      wall_ms: 10_000,
      cpu_ms: 3_500,
      memory_mb: 100,
      pids: 20,
      output_bytes: 262_144,
      disk_mb: 16,
    });
  });
});

describe("without cgroups", () => {
  let sampled: Bench;
  beforeAll(async () => {
    sampled = await Bench.open({ useCgroups: false });
  });
  afterAll(() => sampled[Symbol.asyncDispose]());

  test.for([
    ["oom", "a = []\nwhile True: a.append(bytearray(1 << 20))"],
    ["oom", "f = open('/dev/shm/x', 'wb')\nwhile True: f.write(bytes(1 << 20))"],
    ["pids", "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"],
    ["cpu_timeout", "while True: pass"],
    ["ok", "print(1)"],
  ] as const)("the sampled tree says %s", async ([status, code]) => {
    const result = await sampled.run({
      code,
      limits: { memory_mb: 64, disk_mb: 512, pids: 4, cpu_ms: 400, wall_ms: 20_000 },
    });
    expect(result).toMatchObject({ status, isolation: { memory_enforced_by: "sampled" } });
  });
});
