import { describe, expect, test } from "vitest";
import { sameText, sameValue } from "../../../workers/sandbox/compare.ts";
import { shellQuote } from "../../../workers/sandbox/jail-init.ts";
import { readNodeTestNames } from "../../../workers/sandbox/node-test-names.ts";
import { decodeOutput } from "../../../workers/sandbox/output-capture.ts";
import {
  countTestResults,
  extractFailedTests,
  hasUnittestClasses,
} from "../../../workers/sandbox/text-helpers.ts";

const whole = (bytes: Buffer) => ({ bytes, totalBytes: bytes.length });

describe("decodeOutput", () => {
  test("gives UTF-8 as it is", () => {
    expect(decodeOutput(whole(Buffer.from("häß €\n")))).toEqual({
      text: "häß €\n",
      base64: undefined,
    });
  });

  test("escapes invalid bytes and keeps the bytes beside", () => {
    const bytes = Buffer.from("61ff62c3e282ac80", "hex");
    const { text, base64 } = decodeOutput(whole(bytes));
    expect(text).toBe("a\\xffb\\xc3€\\x80");
    expect(Buffer.from(base64 ?? "", "base64")).toEqual(bytes);
  });

  test.for([1, 2, 3])(
    "does not call a character that the limit cut after %i bytes invalid",
    (cut) => {
      const bytes = Buffer.concat([Buffer.from("ab"), Buffer.from("😀").subarray(0, cut)]);
      expect(decodeOutput({ bytes, totalBytes: 100 })).toEqual({ text: "ab", base64: undefined });
    },
  );
});

describe("comparisons", () => {
  const strict = { text: "trim", tolerance: 0 } as const;
  const loose = { text: "tokens", tolerance: 1e-6 } as const;

  test("values are the same by structure", () => {
    expect(sameValue({ a: [1, null] }, { a: [1, null] }, strict)).toBe(true);
    expect(sameValue({ a: 1, b: 2 }, { a: 1 }, strict)).toBe(false);
    expect(sameValue([], {}, strict)).toBe(false);
    expect(sameValue(true, 1, strict)).toBe(false);
    expect(sameValue(1e9 + 1e-5, 1e9, loose)).toBe(true);
    expect(sameValue("1", 1, loose)).toBe(false);
  });

  test("text is compared as asked", () => {
    expect(sameText("a  \nb\n\n", "a\nb", strict)).toBe(true);
    expect(sameText("a b", "a  b", strict)).toBe(false);
    expect(sameText("a b", "a  b", loose)).toBe(true);
    expect(sameText("0.3333333", "0.33333331", loose)).toBe(true);
    expect(sameText("a\n", "a", { text: "exact", tolerance: 0 })).toBe(false);
  });
});

test("a word survives the shell", () => {
  expect(shellQuote("plain/path-1.0")).toBe("plain/path-1.0");
  expect(shellQuote("it's $HOME")).toBe(String.raw`'it'\''s $HOME'`);
  expect(shellQuote("")).toBe("''");
});

describe("the text helpers", () => {
  test("count results", () => {
    expect(countTestResults("Ran 5 tests in 0.1s\n\nFAILED (failures=2, errors=1)")).toEqual({
      passed: 2,
      total: 5,
    });
    expect(countTestResults("OK")).toEqual({ passed: 0, total: 0 });
  });

  test("name at most five failures", () => {
    const lines = [1, 2, 3, 4, 5, 6].map((n) => ` FAIL: test_${n} (x)`).join("\n");
    expect(extractFailedTests(lines).split("; ")).toHaveLength(5);
    expect(extractFailedTests("ok\nERROR: test_a")).toBe("ERROR: test_a");
    expect(extractFailedTests("")).toBe("");
  });

  test("find TestCase classes", () => {
    expect(hasUnittestClasses("class A(unittest.TestCase):")).toBe(true);
    expect(hasUnittestClasses("class A(Base): # TestCase")).toBe(false);
  });
});

describe("readNodeTestNames", () => {
  test("reads nested names and skips comments and strings", () => {
    const source = `
      // test("comment", () => {});
      const text = 'test("string")'; /* it("block") */
      test.skip("one", () => {});
      describe("outer", () => { it('in\\'ner', () => { check((1 + 2)); }); });
      it(\`after\`, () => {}); contest("no"); object.test("no");
    `;
    expect(readNodeTestNames(source).map(({ name }) => name)).toEqual([
      "one",
      "outer > in'ner",
      "after",
    ]);
  });
});
