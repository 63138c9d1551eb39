import type { Architecture } from "./seccomp.ts";
import { ARCHITECTURE_COLUMN } from "./seccomp.ts";
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
      return number === null ? [] : [callText(number, rule.when)];
    });
    return calls.length === 0 ? [] : [`${verdictText(rule.verdict)} { ${calls.join(", ")} }`];
  });
  return `POLICY sandbox { ${statements.join(", ")} } USE sandbox DEFAULT ALLOW`;
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
