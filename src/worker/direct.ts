import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { readIncoming } from "./body.ts";
import { type CallAnswer, type CallRequest, executeCall, taskCall } from "./calls.ts";
import { refusalAnswer } from "./failure.ts";
import type { Guard } from "./guard.ts";
import type { WorkerRuntime } from "./runtime.ts";

type CallRoute = (runtime: WorkerRuntime, request: CallRequest) => Promise<CallAnswer>;

const CALLS: ReadonlyMap<string | undefined, CallRoute> = new Map([
  ["/execute", executeCall],
  ["/task", taskCall],
]);

/** Below it, head and body leave in one write as one text. */
const SMALL_ANSWER_CHARS = 16 * 1024;

/**
 * Answers the calls straight from `node:http` and hands everything else to `rest`: the web request
 * and response around a small call cost as much as the call. Routes of an app that is tested in
 * process go through the same functions.
 */
export function directListener(
  runtime: WorkerRuntime,
  guard: Guard,
  rest: RequestListener,
): RequestListener {
  return (incoming, outgoing) => {
    const route = incoming.method === "POST" ? CALLS.get(incoming.url) : undefined;
    if (route === undefined) {
      rest(incoming, outgoing);
      return;
    }
    void answerCall(incoming, outgoing, { runtime, guard, route });
  };
}

async function answerCall(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  parts: { readonly runtime: WorkerRuntime; readonly guard: Guard; readonly route: CallRoute },
): Promise<void> {
  const { runtime, guard, route } = parts;
  const refusal = guard.refusal((name) => incoming.headers[name]);
  if (refusal !== undefined) {
    const { status, detail } = refusal;
    send(outgoing, { status, text: JSON.stringify({ detail }) });
    return;
  }
  try {
    const body = await readIncoming(incoming);
    const onLeft = (left: () => void): void => {
      outgoing.once("close", () => {
        if (!outgoing.writableFinished) left();
      });
    };
    send(outgoing, await route(runtime, { body, onLeft }));
  } catch (error) {
    const { status, body } = refusalAnswer(runtime.capability, error);
    send(outgoing, { status, text: JSON.stringify(body) });
  }
}

function send(
  outgoing: ServerResponse,
  { status, text }: { readonly status: number; readonly text: string },
): void {
  const body = text.length > SMALL_ANSWER_CHARS ? Buffer.from(text) : text;
  outgoing.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
  });
  outgoing.end(body);
}
