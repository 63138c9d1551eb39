import { Listr } from "listr2";
import { type InstallEvent, type InstallResult, installAll } from "../../provision/index.ts";
import { compact } from "../../util/compact.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import type { InstallAllOutput } from "../json-output.ts";
import { color, duration, harmless, isInteractive, print, printJson, table } from "../terminal.ts";

export interface InstallOptions extends GlobalOptions {
  readonly capabilities?: string;
  readonly substrateSource?: string;
  readonly force?: boolean;
  readonly only?: readonly string[];
  readonly json?: boolean;
}

export async function installAllCommand(options: InstallOptions): Promise<number> {
  const loaded = await configOf(options);
  const config = {
    ...loaded,
    capabilitiesConfig: options.capabilities ?? loaded.capabilitiesConfig,
  };
  const stop = new AbortController();
  const onSignal = (): void => {
    stop.abort();
  };
  process.once("SIGINT", onSignal);
  try {
    const progress = options.json === true ? undefined : createProgress();
    const results = await installAll(
      compact({
        config,
        only: options.only,
        force: options.force,
        substrateSource: options.substrateSource,
        onEvent: (event: InstallEvent) => progress?.onEvent(event),
        signal: stop.signal,
      }),
    );
    await progress?.end();
    if (options.json === true) printJson(results.map(toJson));
    else print(summary(results));
    return results.some(({ outcome }) => outcome === "failed") ? EXIT.failed : EXIT.ok;
  } finally {
    process.off("SIGINT", onSignal);
  }
}

interface Progress {
  onEvent(event: InstallEvent): void;
  end(): Promise<void>;
}

function createProgress(): Progress {
  return isInteractive() ? liveProgress() : lineProgress();
}

/** In a pipe: a line for each step, nothing that has to be erased. */
function lineProgress(): Progress {
  return {
    onEvent: (event) => {
      if (event.type === "step") print(`${event.name}: ${harmless(event.text)}`);
    },
    end: () => Promise.resolve(),
  };
}

/** On a terminal: one task for each environment, its last step beside it. */
function liveProgress(): Progress {
  const list = new Listr<object>([], { concurrent: true, exitOnError: false });
  const ends = new Map<
    string,
    { step: (text: string) => void; done: PromiseWithResolvers<void> }
  >();
  let running: Promise<unknown> | undefined;
  return {
    onEvent: (event) => {
      if (event.type === "started") {
        const done = Promise.withResolvers<void>();
        const entry = { step: (_text: string): void => undefined, done };
        ends.set(event.name, entry);
        list.add({
          title: `${event.name} (${event.kind})`,
          task: async (_context, task) => {
            entry.step = (text) => {
              task.output = harmless(text);
            };
            await done.promise;
          },
        });
        running ??= Promise.resolve().then(() => list.run());
      } else if (event.type === "step" || event.type === "output") {
        ends.get(event.name)?.step(event.type === "step" ? event.text : event.line);
      } else if (event.type === "finished") {
        const { error } = event.result;
        const done = ends.get(event.name)?.done;
        if (error === undefined) done?.resolve();
        else done?.reject(error);
      }
    },
    end: async () => {
      await running;
    },
  };
}

function summary(results: readonly InstallResult[]): string {
  return table(
    results.map((result) => [
      result.outcome === "failed" ? color.red("failed") : color.green(result.outcome),
      result.name,
      result.kind,
      duration(result.durationMs),
      result.error === undefined
        ? ""
        : harmless(
            `${result.error.message}${result.logPath === undefined ? "" : ` (${result.logPath})`}`,
          ),
    ]),
  );
}

function toJson(result: InstallResult): InstallAllOutput[number] {
  return {
    name: result.name,
    kind: result.kind,
    outcome: result.outcome,
    folder: result.folder ?? null,
    manifest_path: result.manifestPath ?? null,
    adapters: [...result.adapters],
    log_path: result.logPath ?? null,
    error: result.error?.message ?? null,
    duration_ms: Math.round(result.durationMs),
  };
}
