import { DoorClient } from "../../door/index.ts";
import { createPipeline, type Pipeline } from "../../host/pipeline.ts";
import { readHostInfo } from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { onInterrupt } from "../interrupt.ts";
import { monitorIfInstalled } from "../monitor.ts";
import { print, printJson } from "../terminal.ts";
import { follow, report } from "./run.ts";

export interface ResumeOptions extends GlobalOptions {
  readonly monitor?: string;
  readonly json?: boolean;
}

export async function resumeCommand(
  id: string | undefined,
  options: ResumeOptions,
): Promise<number> {
  const config = await configOf(options);
  const live = await readHostInfo(config.dataDir);
  if (live?.door != null) return await resumeThere(live.door, id, options);
  const monitor = await monitorIfInstalled(config, options.monitor);
  await using pipeline = await createPipeline({
    config,
    ...(monitor !== undefined && { systemMonitor: monitor }),
  });
  const ids = id === undefined ? await pipeline.queue.resumable() : [id];
  if (ids.length === 0) return nothing(options);
  let exitCode: number = EXIT.ok;
  for (const one of ids) exitCode = Math.max(exitCode, await resumeOne(pipeline, one, options));
  return exitCode;
}

async function resumeOne({ queue }: Pipeline, id: string, options: ResumeOptions): Promise<number> {
  if (!(await queue.resume(id))) return nothing(options);
  if (!queue.hasComposition(id)) {
    const job = await queue.waitForJob(id);
    if (options.json === true) printJson({ id, status: job.status, error: job.error });
    else print(`${job.status}  ${id}`);
    return job.status === "completed" ? EXIT.ok : EXIT.failed;
  }
  using _interrupt = onInterrupt(() => queue.cancelComposition(id));
  const nodes = queue.compositionNodes(id);
  await follow(queue.eventsForComposition(id), { nodes }, options);
  return report(await queue.waitForComposition(id), { nodes }, options);
}

async function resumeThere(
  door: string,
  id: string | undefined,
  options: ResumeOptions,
): Promise<number> {
  await using client = new DoorClient(door);
  const resumed = id === undefined ? false : await client.resume(id);
  if (!resumed) return nothing(options);
  if (options.json === true) printJson({ id, resumed });
  else print(`resumed by the live host; follow it with: cjm-ctl status --watch`);
  return EXIT.ok;
}

function nothing({ json }: ResumeOptions): number {
  if (json === true) printJson({ resumed: false });
  else print("There is nothing to resume.");
  return EXIT.ok;
}
