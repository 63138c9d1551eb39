import { printError } from "./terminal.ts";

/**
 * Asks for an orderly end at the first Ctrl-C. A second one ends the process at once; the kernel
 * then ends the workers, and what was unfinished can be resumed.
 */
export function onInterrupt(cancel: () => Promise<unknown>): Disposable {
  let isAsked = false;
  const listener = (): void => {
    if (isAsked) process.exit(130);
    isAsked = true;
    printError("Cancelling; press Ctrl-C again to leave at once");
    cancel().catch((error: unknown) => {
      printError(`cancel failed: ${error instanceof Error ? error.message : String(error)}`);
    });
  };
  process.on("SIGINT", listener);
  process.on("SIGTERM", listener);
  return {
    [Symbol.dispose]: () => {
      process.off("SIGINT", listener);
      process.off("SIGTERM", listener);
    },
  };
}
