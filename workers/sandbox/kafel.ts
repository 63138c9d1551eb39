import { ARCHITECTURE_COLUMN, X32_BIT, type Architecture } from "./seccomp.ts";
import {
  SYSCALL_NUMBERS,
  type Condition,
  type SyscallRule,
  type Verdict,
} from "./syscall-policy.ts";

/**
 * The rules in Kafel, the policy language nsjail reads (google.github.io/kafel).
 *
 * Calls are written by number, so that a call nsjail's copy of Kafel does not know is still denied;
 * Kafel itself kills foreign architectures.
 */
export function kafelPolicy(rules: readonly SyscallRule[], architecture: Architecture): string {
  const column = ARCHITECTURE_COLUMN[architecture];
  const statements = rules.flatMap((rule) => {
    const calls = rule.calls.flatMap((call) => {
      const number = SYSCALL_NUMBERS[call][column];
      if (number === null) return [];
      const numbers = architecture === "x64" ? [number, number + X32_BIT] : [number];
      return numbers.map((each) => callText(each, rule.when));
    });
    return calls.length === 0 ? [] : [`${verdictText(rule.verdict)} { ${calls.join(", ")} }`];
  });
  if (architecture === "x64") statements.push(`KILL_PROCESS { ${x32Only().join(", ")} }`);
  return `POLICY sandbox { ${statements.join(", ")} } USE sandbox DEFAULT ALLOW`;
}

/** Calls that only the x32 table has; Kafel's own check lets that table pass. */
function x32Only(): string[] {
  return Array.from({ length: 36 }, (_, index) => callText(X32_BIT + 512 + index, undefined));
}

function callText(number: number, when: readonly Condition[] | undefined): string {
  const name = `SYSCALL[${number}]`;
  if (when === undefined) return name;
  const last = Math.max(...when.map(({ argument }) => argument));
  const names = Array.from({ length: last + 1 }, (_, index) => `a${index}`);
  return `${name}(${names.join(", ")}) { ${when.map(conditionText).join(" && ")} }`;
}

/** The high half of a register is the caller's to choose, so only the low half is compared. */
function conditionText({ argument, test, value }: Condition): string {
  if (test === "has_any_bit") return `(a${argument} & ${value}) != 0`;
  return `(a${argument} & 0xffffffff) ${test === "equals" ? "==" : "!="} ${value}`;
}

function verdictText(verdict: Verdict): string {
  return verdict === "kill" ? "KILL_PROCESS" : `ERRNO(${verdict.errno})`;
}
