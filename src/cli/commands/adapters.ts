import { stat } from "node:fs/promises";
import { join } from "node:path";
import { CjmError } from "../../errors/index.ts";
import { ContentHashes } from "../../queue/index.ts";
import { openJournalReader } from "../../store/index.ts";
import { closest } from "../../util/suggest.ts";
import { lineageTree } from "../adapters/lineage-tree.ts";
import {
  RegistryReader,
  type StoredAdapter,
  type StoredDecision,
} from "../adapters/registry-reader.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import type { AdaptersOutput } from "../json-output.ts";
import { color, harmless, print, printJson, table } from "../terminal.ts";

type AdaptersView = "list" | "show" | "lineage" | "verify";

export interface AdaptersOptions extends GlobalOptions {
  readonly registry?: string;
  readonly task?: string;
  readonly archived?: boolean;
  readonly json?: boolean;
}

const CAPABILITY = "adapter-registry";
const MIB = 1024 * 1024;

/** Looks into a registry of adapters, beside the worker that keeps it or without one. */
export async function adaptersCommand(
  view: AdaptersView,
  id: string | undefined,
  options: AdaptersOptions,
): Promise<number> {
  const folder = await folderOf(options);
  using registry = RegistryReader.open(folder);
  const all = registry?.adapters() ?? [];
  if (view === "list") return list(all, options);
  if (view === "verify")
    return await verify(id === undefined ? all : [find(all, id, folder)], options);
  if (id === undefined) {
    throw new CjmError("CAPABILITY_INPUT", `adapters ${view} needs the id of an adapter`);
  }
  const adapter = find(all, id, folder);
  if (view === "lineage") return lineage(adapter, all, options);
  return show(adapter, registry?.decisions(id) ?? [], options);
}

/** Named, or as the worker is configured, or where it keeps its data by default. */
async function folderOf(options: AdaptersOptions): Promise<string> {
  if (options.registry !== undefined) return options.registry;
  const { dataDir } = await configOf(options);
  await using store = await openJournalReader(join(dataDir, "journal.db"));
  const configured = (await store?.getInstanceConfig(CAPABILITY))?.config["folder"];
  return typeof configured === "string" ? configured : join(dataDir, "data", CAPABILITY);
}

function find(all: readonly StoredAdapter[], id: string, folder: string): StoredAdapter {
  const found = all.find((adapter) => adapter.id === id);
  if (found !== undefined) return found;
  const near = closest(
    id,
    all.map((adapter) => adapter.id),
  );
  const hint = near === undefined ? "" : `; did you mean "${near}"?`;
  throw new CjmError("CAPABILITY_INPUT", `There is no adapter "${id}" in ${folder}${hint}`);
}

function list(all: readonly StoredAdapter[], { task, archived, json }: AdaptersOptions): number {
  const shown = all.filter(
    (adapter) =>
      (archived === true || !adapter.is_archived) &&
      (task === undefined || adapter.task_type === task),
  );
  if (json === true) printJson({ adapters: shown } satisfies AdaptersOutput);
  else if (shown.length === 0) print("There are no adapters.");
  else print(table([HEAD, ...shown.map(row)]));
  return EXIT.ok;
}

const HEAD = ["ID", "TASK", "LEVEL", "FITNESS", "PASSES", "FROM", "GEN", "RANK", "SIZE", "STORED"];

function row(adapter: StoredAdapter): string[] {
  const name = harmless(adapter.id);
  return [
    adapter.is_archived ? color.dim(`${name} (archived)`) : color.bold(name),
    harmless(adapter.task_type),
    harmless(adapter.domain === null ? adapter.level : `${adapter.level}: ${adapter.domain}`),
    score(adapter.fitness_score),
    score(adapter.pass_rate),
    harmless(adapter.method ?? adapter.source),
    String(adapter.generation),
    String(adapter.rank),
    `${(adapter.file_size_bytes / MIB).toFixed(1)} MiB`,
    adapter.created_at.slice(0, 16).replace("T", " "),
  ];
}

function show(
  adapter: StoredAdapter,
  decisions: readonly StoredDecision[],
  { json }: AdaptersOptions,
): number {
  if (json === true) {
    printJson({ adapter, decisions: [...decisions] } satisfies AdaptersOutput);
    return EXIT.ok;
  }
  const { files, ...facts } = adapter;
  const rows = Object.entries(facts).map(([key, value]) => [color.dim(key), harmless(text(value))]);
  print(table(rows));
  print(`\n${color.bold("files")}`);
  print(table(files.map(({ name, size, sha256 }) => [harmless(name), `${size} bytes`, sha256])));
  print(`\n${color.bold("decisions")}`);
  const decided = decisions.map(({ ts, kind, reason, evidence }) => [
    ts,
    kind,
    harmless(reason),
    color.dim(harmless(JSON.stringify(evidence))),
  ]);
  print(table(decided));
  return EXIT.ok;
}

function lineage(
  adapter: StoredAdapter,
  all: readonly StoredAdapter[],
  { json }: AdaptersOptions,
): number {
  const byId = new Map(all.map((one) => [one.id, one]));
  const lines = lineageTree(adapter.id, (id) => byId.get(id)?.parent_ids ?? []);
  if (json === true) {
    const parents = lines.map(({ id }) => [id, byId.get(id)?.parent_ids ?? []] as const);
    printJson({ id: adapter.id, parents: Object.fromEntries(parents) } satisfies AdaptersOutput);
    return EXIT.ok;
  }
  const rows = lines.map(({ branches, id, isRepeated }) => {
    const one = byId.get(id);
    const name = color.bold(harmless(id));
    if (one === undefined) return [`${branches}${name}`, color.dim("not in this registry")];
    if (isRepeated) return [`${branches}${name}`, color.dim("as above")];
    return [
      `${branches}${name}`,
      harmless(one.method ?? one.source),
      `fitness ${score(one.fitness_score)}`,
      one.is_archived ? color.dim("archived") : harmless(one.domain ?? one.task_type),
    ];
  });
  print(table(rows));
  return EXIT.ok;
}

async function verify(
  adapters: readonly StoredAdapter[],
  { json }: AdaptersOptions,
): Promise<number> {
  const hashes = new ContentHashes();
  const findings: { id: string; ok: boolean; detail: string | null }[] = [];
  for (const adapter of adapters) {
    const detail = await problemOf(adapter, hashes);
    findings.push({ id: adapter.id, ok: detail === null, detail });
  }
  const bad = findings.filter(({ ok }) => !ok);
  if (json === true) {
    printJson({ ok: bad.length === 0, verified: findings } satisfies AdaptersOutput);
  } else {
    for (const { id, detail } of bad) print(`${color.red("✗")} ${harmless(`${id}: ${detail}`)}`);
    const good = findings.length - bad.length;
    print(`${good} of ${findings.length} adapters are what was stored`);
  }
  return bad.length === 0 ? EXIT.ok : EXIT.failed;
}

async function problemOf(adapter: StoredAdapter, hashes: ContentHashes): Promise<string | null> {
  for (const { name, size, sha256 } of adapter.files) {
    const path = join(adapter.file_path, name);
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) return `${path} is not there`;
    if (found.size !== size) return `${path} has ${found.size} bytes instead of ${size}`;
    if ((await hashes.file(path)) !== sha256) return `${path} has another content`;
  }
  return null;
}

function score(value: number | null): string {
  return value === null ? "-" : value.toFixed(3);
}

function text(value: unknown): string {
  if (value === null) return "-";
  return typeof value === "string" ? value : JSON.stringify(value);
}
