import { resolve } from "node:path";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import type { ReportOutput } from "../json-output.ts";
import { writeUserFile } from "../user-file.ts";
import { gatherReport } from "../report/gather.ts";
import { renderReport } from "../report/page.ts";
import { color, duration, harmless, print, printJson } from "../terminal.ts";

export interface ReportOptions extends GlobalOptions {
  readonly out?: string;
  readonly json?: boolean;
}

/** Writes one HTML file that shows how a composition went. */
export async function reportCommand(
  id: string | undefined,
  options: ReportOptions,
): Promise<number> {
  const { dataDir } = await configOf(options);
  const model = await gatherReport(dataDir, id);
  const name = model.name.replaceAll(/[^\w-]+/gu, "-").slice(0, 60);
  const path = resolve(options.out ?? `${name}-${model.id.slice(0, 8)}.html`);
  const page = renderReport(model);
  await writeUserFile(path, page);
  const { status, nodes, jobs } = model;
  const bytes = Buffer.byteLength(page);
  if (options.json === true) {
    const counts = { nodes: nodes.length, jobs: jobs.length };
    printJson({ id: model.id, status, path, bytes, ...counts } satisfies ReportOutput);
  } else {
    const took = duration(model.endMs - model.startMs);
    print(`${color.bold(harmless(model.name))}  ${status}, ${jobs.length} jobs in ${took}`);
    print(path);
  }
  return EXIT.ok;
}
