import {
  SYSCALL_NUMBERS,
  type Condition,
  type SyscallRule,
  type Verdict,
} from "./syscall-policy.ts";

/** Architectures the filter is made for; any other system call ABI is killed. */
export type Architecture = "x64" | "arm64";

/** The kernel's audit number of an architecture (linux/audit.h). */
const AUDIT = { x64: 0xc0_00_00_3e, arm64: 0xc0_00_00_b7 } as const;

/** Where an architecture's numbers stand in the table of system calls. */
export const ARCHITECTURE_COLUMN = { x64: 0, arm64: 1 } as const;

/** x86-64's second ABI has the same audit number; its calls carry this bit. */
export const X32_BIT = 0x40_00_00_00;

/** Opcodes of classic BPF (linux/bpf_common.h). */
const LOAD_WORD = 0x20;
const JUMP_EQUAL = 0x15;
const JUMP_AT_LEAST = 0x35;
const JUMP_ANY_BIT = 0x45;
const RETURN = 0x06;

/** Return values of a filter (linux/seccomp.h). */
const KILL_PROCESS = 0x80_00_00_00;
const ERRNO = 0x00_05_00_00;
const ALLOW = 0x7f_ff_00_00;

/** Offsets in struct seccomp_data, little-endian. */
const NUMBER_OFFSET = 0;
const AUDIT_OFFSET = 4;
const FIRST_ARGUMENT_OFFSET = 16;

interface Instruction {
  readonly code: number;
  readonly whenTrue: number;
  readonly whenFalse: number;
  readonly value: number;
}

export function isArchitecture(name: string): name is Architecture {
  return Object.hasOwn(AUDIT, name);
}

/**
 * Assembles the rules to the filter the kernel loads: an array of `struct sock_filter`.
 * Format: Documentation/userspace-api/seccomp_filter and linux/filter.h.
 */
export function assembleFilter(rules: readonly SyscallRule[], architecture: Architecture): Buffer {
  const column = ARCHITECTURE_COLUMN[architecture];
  const program = [
    step(LOAD_WORD, AUDIT_OFFSET),
    jump(JUMP_EQUAL, AUDIT[architecture], { whenTrue: 1, whenFalse: 0 }),
    step(RETURN, KILL_PROCESS),
    step(LOAD_WORD, NUMBER_OFFSET),
  ];
  if (architecture === "x64") {
    program.push(jump(JUMP_AT_LEAST, X32_BIT, { whenTrue: 0, whenFalse: 1 }));
    program.push(step(RETURN, KILL_PROCESS));
  }
  for (const rule of rules) {
    for (const call of rule.calls) {
      const number = SYSCALL_NUMBERS[call][column];
      if (number !== null) program.push(...ruleFor(number, rule));
    }
  }
  program.push(step(RETURN, ALLOW));
  return encode(program);
}

/** Falls through with the call's number loaded unless the rule applies. */
function ruleFor(number: number, { when = [], verdict }: SyscallRule): Instruction[] {
  const tests = when.flatMap((condition, index) => {
    const remaining = (when.length - index - 1) * 2 + 1;
    return [
      step(LOAD_WORD, FIRST_ARGUMENT_OFFSET + condition.argument * 8),
      conditionJump(condition, remaining),
    ];
  });
  const reload = when.length > 0 ? [step(LOAD_WORD, NUMBER_OFFSET)] : [];
  return [
    jump(JUMP_EQUAL, number, { whenTrue: 0, whenFalse: tests.length + 1 }),
    ...tests,
    step(RETURN, returnValue(verdict)),
    ...reload,
  ];
}

/** Goes on when the condition holds, else over `skip` instructions. */
function conditionJump({ test, value }: Condition, skip: number): Instruction {
  if (test === "differs") return jump(JUMP_EQUAL, value, { whenTrue: skip, whenFalse: 0 });
  const code = test === "equals" ? JUMP_EQUAL : JUMP_ANY_BIT;
  return jump(code, value, { whenTrue: 0, whenFalse: skip });
}

function returnValue(verdict: Verdict): number {
  return verdict === "kill" ? KILL_PROCESS : ERRNO + verdict.errno;
}

function step(code: number, value: number): Instruction {
  return { code, whenTrue: 0, whenFalse: 0, value };
}

function jump(
  code: number,
  value: number,
  { whenTrue, whenFalse }: { whenTrue: number; whenFalse: number },
): Instruction {
  return { code, whenTrue, whenFalse, value };
}

function encode(program: readonly Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  for (const [index, { code, whenTrue, whenFalse, value }] of program.entries()) {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(whenTrue, index * 8 + 2);
    bytes.writeUInt8(whenFalse, index * 8 + 3);
    bytes.writeUInt32LE(value, index * 8 + 4);
  }
  return bytes;
}
