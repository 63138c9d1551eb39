import { constants, existsSync } from "node:fs";
import { access, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ResolvedConfig } from "../../config/index.ts";
import { environmentStatus, leftoverWorkers } from "../../provision/index.ts";
import {
  DiagnosticsReader,
  type HostInfo,
  openJournalReader,
  readHostInfo,
} from "../../store/index.ts";
import { type Examination, failed, type Finding, ok, warning } from "./check.ts";

const MIB = 1024 * 1024;
/** Environments of machine-learning tools take gigabytes. */
const COMFORTABLE_MB = 10 * 1024;

/** The project and its data directory. */
export function projectExaminations(config: ResolvedConfig): readonly Examination[] {
  return [
    { name: "configuration", look: () => lookAtConfiguration(config) },
    { name: "environments", look: () => lookAtEnvironments(config) },
    { name: "disk", look: () => lookAtDisk(config) },
    { name: "data directory", look: () => lookAtDataDir(config) },
    { name: "journal", look: () => lookAtJournal(config) },
    { name: "diagnostics", look: () => lookAtDiagnostics(config) },
    { name: "secrets", look: () => lookAtSecrets(config) },
    { name: "workers", look: () => lookAtWorkers(config) },
  ];
}

function lookAtConfiguration({ configPath, capabilitiesConfig }: ResolvedConfig): Finding {
  const place = configPath ?? "no cjm.yaml: defaults";
  if (existsSync(capabilitiesConfig)) return ok(`${place}; ${capabilitiesConfig}`);
  return warning(
    `${place}; there is no ${capabilitiesConfig}`,
    "write it to install capabilities of your own; the shipped ones need none",
  );
}

const ENVIRONMENT_FIX: Readonly<Record<string, string>> = {
  stale: "cjm-ctl install-all",
  broken: "cjm-ctl install-all",
  not_installed: "cjm-ctl install-all",
  unknown: "cjm-ctl install-all, and read what it says",
};

async function lookAtEnvironments(config: ResolvedConfig): Promise<readonly Finding[]> {
  const all = await environmentStatus(config);
  if (all.length === 0) return [ok("none")];
  return all.map(({ name, state, detail }): Finding => {
    const fix = ENVIRONMENT_FIX[state];
    const text = detail === undefined ? state.replaceAll("_", " ") : `${state}: ${detail}`;
    const finding =
      fix === undefined ? ok(text) : state === "broken" ? failed(text, fix) : warning(text, fix);
    return { ...finding, name: `environment ${name}` };
  });
}

async function lookAtDisk({ dataDir, queue }: ResolvedConfig): Promise<Finding> {
  const { bavail, bsize } = await statfs(existingParent(dataDir));
  const freeMb = (bavail * bsize) / MIB;
  const text = `${(freeMb / 1024).toFixed(1)} GiB free for ${dataDir}`;
  if (freeMb < queue.minFreeDiskMb) {
    return failed(
      `${text}; new work is refused below ${queue.minFreeDiskMb} MB`,
      "make room, or move data_dir to another disk",
    );
  }
  if (freeMb > COMFORTABLE_MB) return ok(text);
  return warning(text, "make room before large environments or models are installed");
}

function existingParent(path: string): string {
  let folder = path;
  while (!existsSync(folder) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

async function lookAtDataDir({ dataDir }: ResolvedConfig): Promise<Finding> {
  const folder = existingParent(dataDir);
  try {
    await access(folder, constants.W_OK | constants.X_OK);
  } catch {
    return failed(
      `${folder} cannot be written`,
      `make it this user's: sudo chown -R $USER ${folder}`,
    );
  }
  if (folder !== dataDir) return ok(`${dataDir} will be made by the first host`);
  const host = await readHostInfo(dataDir);
  return ok(
    host === undefined ? `${dataDir}, no live host` : `${dataDir}, host ${host.pid} is live`,
  );
}

const JOURNAL_FIX =
  "restore journal.db from a backup, or move it away to begin a new one; nothing changes it by itself";

async function lookAtJournal({ dataDir }: ResolvedConfig): Promise<Finding> {
  const path = join(dataDir, "journal.db");
  try {
    await using store = await openJournalReader(path);
    if (store === undefined) return ok("not begun");
    const [last] = await store.queryJournal({ limit: 1, descending: true });
    return ok(last === undefined ? "empty" : `readable, ${last.seq} rows, the last of ${last.ts}`);
  } catch (error) {
    return failed(error instanceof Error ? error.message : String(error), JOURNAL_FIX);
  }
}

async function lookAtDiagnostics({ dataDir, substrate }: ResolvedConfig): Promise<Finding> {
  const path = join(dataDir, "diagnostics.db");
  const { diagnosticsRetentionDays: days, diagnosticsRetentionMaxMb: maxMb } = substrate;
  try {
    const reader = DiagnosticsReader.open(path);
    if (reader === undefined) return ok("not begun");
    await using store = reader;
    await store.queryRecords({ limit: 1, descending: true });
    const size = (await stat(path)).size / MIB;
    const isBounded = days > 0 || maxMb !== undefined;
    const text = `readable, ${size.toFixed(1)} MB`;
    if (isBounded) return ok(text);
    return warning(
      `${text}, kept for ever`,
      "set substrate.diagnostics_retention_days in cjm.yaml",
    );
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return warning(detail, `delete ${path}; it holds logs only, and the next host makes a new one`);
  }
}

async function lookAtSecrets({ dataDir }: ResolvedConfig): Promise<Finding> {
  const path = join(dataDir, "secrets", "secrets.json");
  if (!existsSync(path)) return ok("none");
  const mode = (await stat(path)).mode & 0o777;
  if ((mode & 0o077) === 0) return ok("readable by this user only");
  return failed(`${path} can be read by others (mode ${mode.toString(8)})`, `chmod 600 ${path}`);
}

async function lookAtWorkers({ dataDir }: ResolvedConfig): Promise<Finding> {
  const [pids, host] = await Promise.all([leftoverWorkers(dataDir), readHostInfo(dataDir)]);
  if (host !== undefined) return ok(`${pids.length} processes of the live host ${pidOf(host)}`);
  if (pids.length === 0) return ok("no stale ones");
  return warning(
    `${pids.length} processes of an earlier host still run: ${pids.join(" ")}`,
    "the next host ends them when it starts; or now: cjm-ctl resume",
  );
}

const pidOf = ({ pid }: HostInfo): string => String(pid);
