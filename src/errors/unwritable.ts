import { CjmError } from "./cjm-error.ts";

const NO_SPACE = new Set<unknown>(["ENOSPC", "EDQUOT", "SQLITE_FULL"]);

/** `STORE_REJECTED` with the name of what cannot be written: a full or read-only disk does not say where it is. */
export function unwritable(path: string, error: unknown): CjmError {
  if (error instanceof CjmError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return new CjmError("STORE_REJECTED", `${path} cannot be written: ${reason}`, {
    cause: error,
    details: { path },
    ...(NO_SPACE.has(code) && { category: "resource" }),
  });
}
