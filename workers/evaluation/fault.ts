import { CjmError } from "cjm-substrate/worker";

/** What was asked for has no answer: the numbers given do not belong together. */
export function refuse(message: string, fields: readonly string[] = []): CjmError {
  return new CjmError("CAPABILITY_INPUT", message, { fieldsInvalid: fields });
}
