import { bindInputs, type Composition, dependencies } from "../../composition/index.ts";
import type { ResolvedConfig } from "../../config/index.ts";
import { DoorClient } from "../../door/index.ts";
import { createPipeline } from "../../host/pipeline.ts";
import type { QueueEvent } from "../../queue/index.ts";
import { readHostInfo } from "../../store/index.ts";
import { isRecord } from "../../util/record.ts";
import {
  type FinishedComposition,
  printComposition,
  printCompositionJson,
} from "../composition-result.ts";
import { checkAgainstManifests } from "../composition-check.ts";
import { parseSettings, readComposition } from "../composition-source.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { onInterrupt } from "../interrupt.ts";
import { monitorIfInstalled } from "../monitor.ts";
import { RunView } from "../run-view.ts";

export interface RunOptions extends GlobalOptions {
  readonly set?: readonly string[];
  readonly monitor?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

export async function runCommand(path: string, options: RunOptions): Promise<number> {
  const config = await configOf(options);
  const source = await readComposition(path, config, options);
  const { document, composition } = source;
  const inputs = parseSettings(source, options.set ?? []);
  // Before anything is started: a file that is wrong is told in an instant.
  await checkAgainstManifests(bindInputs(composition, inputs), config);
  const live = await readHostInfo(config.dataDir);
  const done =
    live?.door == null
      ? await runHere(composition, inputs, { config, options })
      : await runThere(live.door, { document, composition, inputs }, options);
  return report(done, composition, options);
}

/** Shows a finished composition and says how it went. */
export function report(
  done: FinishedComposition,
  composition: Pick<Composition, "nodes">,
  { json }: { readonly json?: boolean },
): number {
  if (json === true) printCompositionJson(done);
  else printComposition(done, leavesOf(composition));
  if (done.status === "completed") return EXIT.ok;
  return done.status === "cancelled" ? EXIT.interrupted : EXIT.failed;
}

async function runHere(
  composition: Composition,
  inputs: Readonly<Record<string, unknown>>,
  { config, options }: { readonly config: ResolvedConfig; readonly options: RunOptions },
): Promise<FinishedComposition> {
  const monitor = await monitorIfInstalled(config, options.monitor);
  await using pipeline = await createPipeline({
    config,
    ...(monitor !== undefined && { systemMonitor: monitor }),
  });
  const run = await pipeline.queue.submitComposition(composition, inputs);
  using _interrupt = onInterrupt(() => run.cancel());
  await follow(run.events(), composition, options);
  return await run.ended();
}

async function runThere(
  door: string,
  work: {
    readonly document: unknown;
    readonly composition: Composition;
    readonly inputs: Readonly<Record<string, unknown>>;
  },
  options: RunOptions,
): Promise<FinishedComposition> {
  await using client = new DoorClient(door);
  const id = await client.submit(isRecord(work.document) ? work.document : {}, work.inputs);
  using _interrupt = onInterrupt(() => client.cancel(id));
  await follow(client.events(id), work.composition, options);
  return await client.composition(id);
}

/** Shows events until the composition is over. */
export async function follow(
  events: AsyncIterable<QueueEvent>,
  { nodes }: Pick<Composition, "nodes">,
  { json }: { readonly json?: boolean },
): Promise<void> {
  using view = new RunView(
    nodes.map(({ id }) => id),
    json === true,
  );
  for await (const event of events) view.show(event);
}

/** Nodes whose result no other node uses. */
function leavesOf({ nodes }: Pick<Composition, "nodes">): ReadonlySet<string> {
  const used = new Set(nodes.flatMap((node) => [...dependencies(node).all]));
  return new Set(nodes.map(({ id }) => id).filter((id) => !used.has(id)));
}
