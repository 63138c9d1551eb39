import type { Frame, Options } from "../frame.ts";
import { JSON_LINES_OPTION, JSON_OPTION } from "../frame.ts";

const HEADING = "Look:";

/** Shows what is and what was; changes nothing, `retention` apart. */
export function addLookCommands(frame: Frame): void {
  addLogs(frame);
  addLive(frame);
  addAsk(frame);
  addReport(frame);
  addDoctor(frame);
}

function addAsk({ command, globals, finish }: Frame): void {
  command("explain", {
    summary: "Show where a job's or a composition's time went, and who was in its way",
    example: "explain 9b6c427a-3f5a-4ecd-b8c0-c91b31971e85",
    heading: HEADING,
  })
    .argument("<id>", "composition or job")
    .option(...JSON_OPTION)
    .action(async (id: string, options: Options) => {
      const { explainCommand } = await import("../commands/explain.ts");
      await finish(explainCommand(id, { ...globals(), ...options }));
    });
  command("trace", {
    summary: "Show what a file, hash or node comes from, and what came of it",
    example: "trace models/merged.safetensors",
    heading: HEADING,
  })
    .argument("<what>", "path, sha256:<hex>, or <composition>/<node>")
    .option(...JSON_OPTION)
    .action(async (what: string, options: Options) => {
      const { traceCommand } = await import("../commands/trace.ts");
      await finish(traceCommand(what, { ...globals(), ...options }));
    });
  command("profiles", {
    summary: "List, export (--json) or clear what jobs were measured to need",
    example: "profiles --capability inference",
    heading: HEADING,
  })
    .option("--capability <name>", "only of this capability")
    .option("--clear", "forget them; the next job of each is its measurement again")
    .option(...JSON_OPTION)
    .action(async (options: { readonly clear?: boolean }) => {
      const { clearProfilesCommand, profilesCommand } = await import("../commands/profiles.ts");
      const run = options.clear === true ? clearProfilesCommand : profilesCommand;
      await finish(run({ ...globals(), ...options }));
    });
}

function addReport({ command, globals, finish }: Frame): void {
  command("report", {
    summary: "Write one HTML file about a composition: graph, timeline, memory, losses, pass@k",
    example: "report 9b6c427a-3f5a-4ecd-b8c0-c91b31971e85 --out report.html",
    heading: HEADING,
  })
    .argument("[composition]", "id of it (default: the newest)")
    .option("-o, --out <file>", "where to write it (default: <name>-<id>.html)")
    .option(...JSON_OPTION)
    .action(async (id: string | undefined, options: Options) => {
      const { reportCommand } = await import("../commands/report.ts");
      await finish(reportCommand(id, { ...globals(), ...options }));
    });
}

function addLogs({ command, globals, finish }: Frame): void {
  command("logs", {
    summary: "Show what workers logged, or the journal of what the host did",
    example: "logs --journal --follow",
    heading: HEADING,
  })
    .option("--job <id>", "only this job")
    .option("--run <id>", "only this run of a caller (implies --journal)")
    .option("--session <id>", "only this worker session")
    .option("--level <level>", "only records of this level, such as WARNING")
    .option("--journal", "the journal instead of the workers' records")
    .option("--chunks", "raw output of the workers")
    .option("-n, --limit <n>", "the newest n entries; 0 shows all", "50")
    .option("-f, --follow", "wait for new entries (Ctrl-C ends it)")
    .option(...JSON_LINES_OPTION)
    .action(async (options: { readonly limit: string }) => {
      const { logsCommand } = await import("../commands/logs.ts");
      await finish(logsCommand({ ...globals(), ...options }));
    });
  command("retention", {
    summary: "Delete old diagnostics, and large results, by age and size; the journal stays",
    example: "retention --max-age-days 7",
    heading: HEADING,
  })
    .option(
      "--max-age-days <days>",
      "delete what is older (default: diagnostics_retention_days of cjm.yaml)",
    )
    .option(
      "--max-total-mb <mb>",
      "delete the oldest until it fits (default: diagnostics_retention_max_mb of cjm.yaml)",
    )
    .option(
      "--results-max-age-days <days>",
      "delete large results and adopted files of work that ended before (default: none)",
    )
    .option(
      "--results-max-total-mb <mb>",
      "delete the oldest of them until they fit; what unfinished work needs stays (default: none)",
    )
    .option(...JSON_OPTION)
    .action(async (options: Options) => {
      const { retentionCommand } = await import("../commands/retention.ts");
      await finish(retentionCommand({ ...globals(), ...options }));
    });
}

function addLive({ command, globals, finish }: Frame): void {
  command("status", {
    summary: "Show lanes, jobs, instances and GPUs of the live host",
    example: "status --watch",
    heading: HEADING,
  })
    .option("-w, --watch", "repeat every second")
    .option(...JSON_OPTION)
    .action(async (options: Options) => {
      const { statusCommand } = await import("../commands/status.ts");
      await finish(statusCommand({ ...globals(), ...options }));
    });
  command("top", {
    summary: "Watch GPUs, instances and the peaks of running jobs",
    example: "top --once",
    heading: HEADING,
  })
    .option("-d, --delay <seconds>", "time between two pictures", "1")
    .option("--once", "print one picture and end")
    .option(...JSON_OPTION)
    .action(async (options: { readonly delay: string }) => {
      const { topCommand } = await import("../commands/top.ts");
      await finish(topCommand({ ...globals(), ...options }));
    });
}

function addDoctor({ command, globals, finish }: Frame): void {
  command("doctor", {
    summary: "Check this machine and project, and say what to do about what is wrong",
    example: "doctor --json",
    heading: HEADING,
  })
    .option(...JSON_OPTION)
    .action(async (options: Options) => {
      const { doctorCommand } = await import("../commands/doctor.ts");
      await finish(doctorCommand({ ...globals(), ...options }));
    });
}
