import { createInterface } from "node:readline/promises";
import { CjmError } from "../errors/index.ts";

/**
 * Asks a yes-or-no question; no is the answer to anything but yes.
 *
 * @throws {CjmError} `CAPABILITY_INPUT` where nobody can answer.
 */
export async function confirm(question: string): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    throw new CjmError("CAPABILITY_INPUT", `${question} Nobody is here to answer; use --yes`);
  }
  const prompt = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(?:es)?$/iu.test((await prompt.question(`${question} [y/N] `)).trim());
  } finally {
    prompt.close();
  }
}
