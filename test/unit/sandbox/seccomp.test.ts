import { describe, expect, test } from "vitest";
import { kafelPolicy } from "../../../workers/sandbox/kafel.ts";
import { assembleFilter } from "../../../workers/sandbox/seccomp.ts";
import { SYSCALL_NUMBERS, SYSCALL_RULES } from "../../../workers/sandbox/syscall-policy.ts";
import { runFilter } from "./bpf-machine.ts";

const KILL = 0x80_00_00_00;
const ALLOW = 0x7f_ff_00_00;
const errno = (number: number): number => 0x00_05_00_00 + number;
const X64 = 0xc0_00_00_3e;
const ARM64 = 0xc0_00_00_b7;

const x64 = assembleFilter(SYSCALL_RULES, "x64");
const arm64 = assembleFilter(SYSCALL_RULES, "arm64");
const onX64 = (number: number, ...args: bigint[]): number =>
  runFilter(x64, { number, audit: X64, args });

describe("the assembled filter", () => {
  test("fits what the kernel loads", () => {
    expect(x64.length % 8).toBe(0);
    expect(x64.length / 8).toBeLessThan(4_096);
  });

  test("allows what is not named", () => {
    expect([0, 1, 59, 202].map((number) => onX64(number))).toEqual([ALLOW, ALLOW, ALLOW, ALLOW]);
  });

  test.for(["ptrace", "mount", "unshare", "bpf", "keyctl", "reboot"] as const)(
    "kills %s",
    (name) => {
      const [first, second] = SYSCALL_NUMBERS[name];
      expect(onX64(first)).toBe(KILL);
      expect(runFilter(arm64, { number: second, audit: ARM64 })).toBe(KILL);
    },
  );

  test("kills another architecture's calls and the x32 table", () => {
    expect(runFilter(x64, { number: 20, audit: 0x40_00_00_03 })).toBe(KILL);
    expect(runFilter(x64, { number: 1, audit: ARM64 })).toBe(KILL);
    expect(runFilter(arm64, { number: 1, audit: X64 })).toBe(KILL);
    expect(onX64(0x40_00_00_00 + 39)).toBe(KILL);
  });

  test("reads the flags of clone", () => {
    const [clone] = SYSCALL_NUMBERS.clone;
    expect(onX64(clone, 0x01_20_00_11n)).toBe(ALLOW);
    expect(onX64(clone, 0x00_3d_0f_00n)).toBe(ALLOW);
    for (const flag of [
      0x2_00_00n,
      0x02_00_00_00n,
      0x04_00_00_00n,
      0x10_00_00_00n,
      0x40_00_00_00n,
    ]) {
      expect(onX64(clone, flag | 17n)).toBe(KILL);
    }
  });

  test("hides clone3 and io_uring as a kernel without them would", () => {
    expect(onX64(435)).toBe(errno(38));
    expect(onX64(425)).toBe(errno(38));
  });

  test("allows the socket families of an empty network only", () => {
    const families = {
      1: ALLOW,
      2: ALLOW,
      10: ALLOW,
      16: ALLOW,
      17: errno(97),
      38: errno(97),
      40: errno(97),
    };
    for (const [family, verdict] of Object.entries(families)) {
      expect(onX64(41, BigInt(family), 1n, 0n)).toBe(verdict);
    }
    expect(onX64(41, 16n, 3n, 9n)).toBe(errno(93));
  });

  test("refuses the signs of a limit, whatever the upper half of the register holds", () => {
    expect(onX64(62, 1n, 9n)).toBe(ALLOW);
    expect(onX64(62, 1n, 31n)).toBe(errno(1));
    expect(onX64(62, 1n, (1n << 32n) + 31n)).toBe(errno(1));
    expect(onX64(234, 1n, 1n, 25n)).toBe(errno(1));
  });
});

describe("the Kafel policy", () => {
  test("says the same by number", () => {
    const policy = kafelPolicy(SYSCALL_RULES, "x64");
    expect(policy).toContain("ERRNO(38) { SYSCALL[435]");
    expect(policy).toContain("SYSCALL[56](a0) { (a0 & 2114060288) != 0 }");
    expect(policy.endsWith("USE sandbox DEFAULT ALLOW")).toBe(true);
  });
});
