import { AsyncLocalStorage } from "node:async_hooks";
import type { Call } from "./capability.ts";

const calls = new AsyncLocalStorage<Call>();

/** The call whose code is running, or undefined outside of one. */
export function currentCall(): Call | undefined {
  return calls.getStore();
}

/** Runs `work`, and everything it starts, with the identity of `call`. */
export function withCall<T>(call: Call, work: () => T): T {
  return calls.run(call, work);
}
