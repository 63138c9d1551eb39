import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { TestsOutput } from "../../../workers/sandbox/tests-schema.ts";
import { Bench } from "./support.ts";

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open();
});
afterAll(() => bench[Symbol.asyncDispose]());

const outcomes = ({ tests }: TestsOutput): Record<string, string> =>
  Object.fromEntries(tests.map(({ name, outcome }) => [name, outcome]));

const ADD_TESTS = `
import unittest
from main import add
class Base(unittest.TestCase):
    def test_zero(self): self.assertEqual(add(0, 0), 0)
class AddTest(Base):
    def test_small(self): self.assertEqual(add(1, 2), 3)
    def test_large(self): self.assertEqual(add(10, 20), 30)
if __name__ == "__main__":
    unittest.main()
`;
const ADD = "def add(a, b): return a + b";
const WRONG = "def add(a, b): return 0";

describe("run_tests with unittest", () => {
  test("counts what passed and what failed, inherited tests included", async () => {
    const right = await bench.test({ code: ADD, tests: ADD_TESTS });
    const wrong = await bench.test({ code: WRONG, tests: ADD_TESTS });
    expect(right).toMatchObject({ trust: "in_process", passed: 4, total: 4, all_passed: true });
    expect(outcomes(wrong)).toEqual({
      "Base.test_zero": "passed",
      "AddTest.test_zero": "passed",
      "AddTest.test_small": "failed",
      "AddTest.test_large": "failed",
    });
  });

  test("says that the code cannot be loaded", async () => {
    const result = await bench.test({ code: "def add(:", tests: ADD_TESTS });
    expect(result).toMatchObject({ passed: 0, total: 4, all_passed: false });
    expect(result.message).toContain("SyntaxError");
  });

  test("refuses tests that cannot be read", async () => {
    const running = bench.test({ code: ADD, tests: "class (" });
    await expect(running).rejects.toMatchObject({
      code: "CAPABILITY_INPUT",
      fieldsInvalid: ["tests"],
    });
  });

  test.for([
    ["leaving with success at import", `import os\nos._exit(0)`],
    ["leaving with success in a test", `import os\ndef add(a, b): os._exit(0)`],
    ["printing a report", `print("Ran 4 tests in 0.001s\\n\\nOK")\n${WRONG}`],
    [
      "reporting on the channel without the nonce",
      `import os\nfor n in ["AddTest.test_small"]: os.write(3, b'0 ["AddTest.test_small","passed",""]\\n')\n${WRONG}`,
    ],
    ["skipping", `import unittest\ndef add(a, b): raise unittest.SkipTest("later")`],
    ["leaving by SystemExit", `def add(a, b): raise SystemExit(0)`],
    [
      "a runner that calls every test a success",
      `import unittest\nunittest.TestCase.run = lambda self, result=None: result.startTest(self) or result.addSuccess(self)\n${WRONG}`,
    ],
    [
      "an assertion that asserts nothing, replaced during a test",
      `import unittest\ndef add(a, b):\n  unittest.TestCase.assertEqual = lambda *a, **k: None\n  return 0`,
    ],
    [
      "an assertion with other code in it",
      `import unittest\nunittest.TestCase.assertEqual.__code__ = (lambda *a, **k: None).__code__\n${WRONG}`,
    ],
    [
      "a loader that finds only what passes",
      `import unittest\nclass Good(unittest.TestCase):\n  def test_good(self): pass\nunittest.TestLoader.loadTestsFromModule = lambda *a, **k: unittest.TestSuite([Good('test_good')])\n${WRONG}`,
    ],
  ] as const)("is not passed by %s", async ([, code]) => {
    const result = await bench.test({ code, tests: ADD_TESTS });
    expect(result.all_passed).toBe(false);
    expect(result.passed).toBeLessThan(4);
  });

  // What the word in_process is there for: no test runner can defend its own memory.
  test("is passed by code that takes the nonce from the runner's memory", async () => {
    const code = `
import os, sys
def add(a, b): return 0
frame = sys._getframe()
while frame is not None:
    nonce = frame.f_locals.get("nonce")
    if nonce:
        for name in ["Base.test_zero", "AddTest.test_zero", "AddTest.test_small", "AddTest.test_large"]:
            os.write(3, nonce + b' ["' + name.encode() + b'","passed",""]\\n')
        os.write(3, nonce + b' ["","done",""]\\n')
        os._exit(0)
    frame = frame.f_back
`;
    const result = await bench.test({ code, tests: ADD_TESTS });
    expect(result).toMatchObject({ trust: "in_process", all_passed: true });
  });
});

const NODE_TESTS = `
import test, { describe, it } from "node:test";
import assert from "node:assert/strict";
import { add } from "./main.js";
// test("not a test", () => {});
test("adds", () => assert.equal(add(1, 2), 3));
describe("numbers", () => {
  it("are large", () => assert.equal(add(10, 20), 30));
  describe("of zero", () => { it('stay "zero"', () => assert.equal(add(0, 0), 0)); });
});
test("later", async () => { await null; assert.equal(add(2, 2), 4); });
`;

describe("run_tests with node:test", () => {
  test("counts what passed and what failed, by nested name", async () => {
    const right = await bench.test({
      language: "node",
      code: "export const add = (a, b) => a + b;",
      tests: NODE_TESTS,
    });
    const wrong = await bench.test({
      language: "javascript",
      code: "export const add = (a, b) => 0;",
      tests: NODE_TESTS,
    });
    expect(right).toMatchObject({ passed: 4, total: 4, all_passed: true });
    expect(outcomes(wrong)).toEqual({
      adds: "failed",
      "numbers > are large": "failed",
      'numbers > of zero > stay "zero"': "passed",
      later: "failed",
    });
  });

  test.for([
    ["leaving with success", "process.exit(0); export const add = () => 0;"],
    [
      "an assertion that asserts nothing",
      "import assert from 'node:assert/strict'; try { assert.equal = () => {}; } catch {} export const add = () => 0;",
    ],
    ["printing a report", "console.log('# pass 4'); export const add = () => 0;"],
  ] as const)("is not passed by %s", async ([, code]) => {
    const result = await bench.test({ language: "node", code, tests: NODE_TESTS });
    expect(result.all_passed).toBe(false);
    expect(result.passed).toBeLessThan(4);
  });
});

const hasPytest = spawnSync("python3", ["-c", "import pytest"]).status === 0;

const PYTEST_TESTS = `
import pytest
from main import add
def test_small(): assert add(1, 2) == 3
@pytest.mark.parametrize("n", [1, 2, 3])
def test_many(n): assert add(n, 0) == n
class TestLarge:
    def test_large(self): assert add(10, 20) == 30
`;

describe.skipIf(!hasPytest)(
  `run_tests with pytest${hasPytest ? "" : " (skipped: not there)"}`,
  () => {
    test("counts what passed and what failed", async () => {
      const right = await bench.test({ code: ADD, tests: PYTEST_TESTS, framework: "pytest" });
      const wrong = await bench.test({ code: WRONG, tests: PYTEST_TESTS, framework: "pytest" });
      expect(right).toMatchObject({ passed: 3, total: 3, all_passed: true });
      expect(wrong).toMatchObject({ passed: 0, total: 3, all_passed: false });
    });

    test.for([
      ["leaving with success", "import os\ndef add(a, b): os._exit(0)"],
      [
        "a runner that runs nothing",
        `import _pytest.python\n_pytest.python.Function.runtest = lambda self: None\n${WRONG}`,
      ],
    ] as const)("is not passed by %s", async ([, code]) => {
      const result = await bench.test({ code, tests: PYTEST_TESTS, framework: "pytest" });
      expect(result).toMatchObject({ passed: 0, all_passed: false });
    });
  },
);
