import { CjmError } from "../errors/index.ts";
import { chunkLine } from "./json-text.ts";
import { withCall } from "./current-call.ts";
import { toFailure } from "./failure.ts";
import type { RunningCall } from "./running-call.ts";
import type { WorkerRuntime } from "./runtime.ts";

/**
 * Chunks as NDJSON, produced only as fast as the host reads them. A failure is the last line; a
 * host that leaves cancels the call.
 */
export function chunkStream(
  runtime: WorkerRuntime,
  call: RunningCall,
  chunks: AsyncIterator<unknown, undefined>,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const lastLine = (error: unknown): string => {
    const { body } = toFailure(error, { capabilityName: runtime.capability.name, call });
    return `${JSON.stringify(body)}\n`;
  };

  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await withCall(call, () => chunks.next());
          if (done !== true) {
            controller.enqueue(encoder.encode(chunkLine(value)));
            return;
          }
        } catch (error) {
          controller.enqueue(encoder.encode(lastLine(error)));
        }
        await runtime.end(call);
        controller.close();
      },
      async cancel() {
        call.abort(new CjmError("CAPABILITY_CANCELLED", "the host left the stream"));
        try {
          await withCall(call, () => chunks.return?.());
        } catch (error) {
          runtime.log.debug("ending an abandoned stream failed", error);
        } finally {
          await runtime.end(call);
        }
      },
    },
    { highWaterMark: 0 },
  );
}
