import { describe, expect, test } from "vitest";
import { lintPython } from "../../../src/provision/lint-python.ts";

const found = (source: string): [number, boolean][] =>
  lintPython(source).map(({ line, isError }) => [line, isError]);

describe("lintPython", () => {
  test("refuses a basicConfig that removes the worker's handler, wherever its argument is", () => {
    expect(found("import logging\nlogging.basicConfig(level=10, force=True)\n")).toEqual([
      [2, true],
    ]);
    expect(found("logging.basicConfig(\n    format=f(1, (2)),\n    force = True,\n)")).toEqual([
      [1, true],
    ]);
    expect(found("from logging import basicConfig\nbasicConfig(force=True)")).toEqual([[2, true]]);
  });

  test("warns of one that does nothing", () => {
    expect(found("logging.basicConfig(level=logging.INFO)\nf(force=True)")).toEqual([[1, false]]);
    expect(found("logging.basicConfig(force=False)")).toEqual([[1, false]]);
  });

  test("does not take strings, comments and other names for a call", () => {
    const source = [
      "# logging.basicConfig(force=True)",
      'text = "logging.basicConfig(force=True)"',
      '"""',
      "logging.basicConfig(force=True)",
      '"""',
      "other.basicConfig(force=True)",
      "my_basicConfig(force=True)",
    ].join("\n");
    expect(found(source)).toEqual([]);
  });
});
