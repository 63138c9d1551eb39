import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CasesOutput } from "../../../workers/sandbox/cases-schema.ts";
import { Bench } from "./support.ts";

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open();
});
afterAll(() => bench[Symbol.asyncDispose]());

const outcomes = ({ cases }: CasesOutput): string[] => cases.map(({ outcome }) => outcome);

const SQUARES = [
  { args: [2], expected: 4 },
  { args: [3], expected: 9 },
  { args: [-4], expected: 16 },
];

describe("check_cases with a function", () => {
  test("counts right and wrong answers of Python", async () => {
    const result = await bench.check({
      code: "def f(x):\n  print('noise')\n  return x * x if x > 0 else x",
      function: "f",
      cases: SQUARES,
    });
    expect(result).toMatchObject({ trust: "isolated", passed: 2, total: 3, all_passed: false });
    expect(outcomes(result)).toEqual(["passed", "passed", "wrong"]);
    expect(result.run.status).toBe("ok");
  });

  test.for([
    ["a plain function", "function f(x) { return x * x }"],
    ["an export", "export const f = async (x) => x * x"],
    ["CommonJS", "exports.f = (x) => x * x"],
  ] as const)("calls %s of JavaScript", async ([, code]) => {
    const result = await bench.check({ language: "node", code, function: "f", cases: SQUARES });
    expect(result).toMatchObject({ passed: 3, all_passed: true });
  });

  test("goes on after an exception, a crash and a loop, each with its own outcome", async () => {
    const result = await bench.check({
      code: "import os\ndef f(x):\n  if x == 1: raise ValueError('one')\n  if x == 2: os._exit(0)\n  while x == 3: pass\n  return x",
      function: "f",
      cases: [1, 2, 3, 4].map((x) => ({ args: [x], expected: x })),
      limits: { wall_ms: 700 },
    });
    expect(outcomes(result)).toEqual(["error", "ended", "timeout", "passed"]);
    expect(result.cases[0]?.message).toContain("ValueError: one");
  });

  test("stops asking a program that ends every jail", async () => {
    const result = await bench.check({
      code: "import os; os._exit(0)",
      function: "f",
      cases: [1, 2, 3, 4, 5].map((x) => ({ args: [x], expected: x })),
    });
    expect(outcomes(result)).toEqual(["ended", "ended", "ended", "not_run", "not_run"]);
  });

  test.for([
    ["printing a verdict", "print('OK'); print('{\"passed\": 3}')\ndef f(x): return None"],
    [
      "answering before it is asked",
      'import os\nos.write(3, b\'{"id": "", "value": 4}\\n{"id": 1, "value": 9}\\n\')\ndef f(x): return None',
    ],
    [
      "replacing the driver's tools",
      'import json\njson.dumps = lambda *a, **k: \'{"passed": true, "value": 4}\'\ndef f(x): return None',
    ],
    [
      "an object that claims to be equal",
      "class E(int):\n  __eq__ = lambda s, o: True\ndef f(x): return E(7)",
    ],
    ["leaving with success", "import os\ndef f(x): os._exit(0)"],
  ] as const)("is not passed by %s", async ([, code]) => {
    const result = await bench.check({
      code,
      function: "f",
      cases: SQUARES,
      limits: { wall_ms: 700 },
    });
    expect(result.passed).toBe(0);
  });

  test("keeps expected values out of the jail", async () => {
    const result = await bench.check({
      code: "import gc, os, subprocess\ndef f(x):\n  seen = repr(gc.get_objects()) + open('/proc/self/environ').read() + open('/proc/self/cmdline').read() + repr([open(n).read() for n in os.listdir('.') if os.path.isfile(n)])\n  return 'needle-' + str(x * 7) in seen",
      function: "f",
      cases: [{ args: [6], expected: "needle-42" }],
    });
    expect(result.cases[0]).toMatchObject({ outcome: "wrong", got: false });
  });

  test("compares numbers within the tolerance", async () => {
    const code = "def f(): return [0.1 + 0.2, {'a': 1}]";
    const cases = [{ expected: [0.3, { a: 1 }] }];
    const exact = await bench.check({ code, function: "f", cases });
    const close = await bench.check({ code, function: "f", cases, tolerance: 1e-9 });
    expect([exact.passed, close.passed]).toEqual([0, 1]);
  });
});

describe("check_cases with a program", () => {
  test("feeds stdin and compares what is printed", async () => {
    const result = await bench.check({
      code: "print(sum(map(int, input().split())), end='  \\n')",
      cases: [
        { stdin: "1 2 3", expected: "6" },
        { stdin: "4 5", expected: "10" },
      ],
    });
    expect(outcomes(result)).toEqual(["passed", "wrong"]);
  });

  test("does not pass output that comes with a failure", async () => {
    const result = await bench.check({
      language: "bash",
      code: "echo 6; exit 1",
      cases: [{ stdin: "", expected: "6" }],
    });
    expect(outcomes(result)).toEqual(["ended"]);
  });
});
