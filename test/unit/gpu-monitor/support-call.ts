import { envelopeSchema } from "../../../src/protocol/index.ts";
import type { Call } from "../../../src/worker/index.ts";

/** A call as the worker runtime would make it, with nobody listening. */
export function bareCall<Config>(
  config: Config,
  signal = new AbortController().signal,
): Call<Config> {
  const ignore = (): void => undefined;
  return {
    config,
    signal,
    envelope: envelopeSchema.parse({}),
    outputFolder: "",
    dataFolder: "",
    log: { debug: ignore, info: ignore, warning: ignore, error: ignore },
    progress: ignore,
    usage: ignore,
    account: ignore,
    memory: ignore,
    heartbeat: (_message, work) => work(),
    invoke: () => Promise.reject(new Error("a bare call has no other actions")),
  };
}
