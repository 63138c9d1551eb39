import { describe, expect, test } from "vitest";
import { decideStatus, parseGuestEnd } from "../../../workers/sandbox/status.ts";

const exited = (exitCode: number) => ({ exitCode, signal: null });
const died = (signal: number) => ({ exitCode: null, signal });

describe("decideStatus", () => {
  test.for([
    ["ok", undefined, exited(0)],
    ["nonzero", undefined, exited(1)],
    ["nonzero", undefined, exited(137)],
    ["nonzero", undefined, exited(159)],
    ["signal", undefined, died(9)],
    ["signal", undefined, died(11)],
    ["signal", undefined, undefined],
    ["seccomp", undefined, died(31)],
    ["disk_limit", undefined, died(25)],
    ["cpu_timeout", undefined, died(24)],
    ["oom", "oom", died(9)],
    ["wall_timeout", "wall_timeout", undefined],
    ["output_limit", "output_limit", exited(0)],
  ] as const)("says %s for %s and %o", ([status, firstLimit, end]) => {
    expect(decideStatus({ firstLimit, end })).toBe(status);
  });

  test("says setup_error before anything else", () => {
    const setupError = "no jail";
    expect(decideStatus({ firstLimit: "oom", end: exited(0), setupError })).toBe("setup_error");
  });
});

test("awk's status keeps an exit code and a signal apart", () => {
  expect(parseGuestEnd(137)).toEqual(exited(137));
  expect(parseGuestEnd(256 + 9)).toEqual(died(9));
  expect(parseGuestEnd(512 + 11)).toEqual(died(11));
});
