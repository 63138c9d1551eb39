import { parentPort, workerData } from "node:worker_threads";
import { NvmlSource } from "./nvml.ts";

/** What the thread is asked. */
export type NvmlRequest = "read" | "close";

/**
 * The only thread that calls the driver. Its first message is null, or the reason why the library
 * cannot serve; then it answers each request with a reading, in order.
 */
async function serve(port: NonNullable<typeof parentPort>, path: string): Promise<void> {
  const source = await NvmlSource.open(path);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  const answer = (message: unknown): void => port.postMessage(message);
  if (typeof source === "string") {
    answer(source);
    port.close();
    return;
  }
  port.on("message", (request: NvmlRequest) => {
    if (request === "read") return answer(source.read());
    source[Symbol.dispose]();
    port.close();
  });
  answer(null);
}

if (parentPort === null) throw new TypeError("This is the program of a thread");
await serve(parentPort, String(workerData));
