import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { pidFromNamespace, processFacts, isAlive } from "../processes.ts";
import { publishedSchema, type Published, type PublishedProcess } from "./script-schema.ts";

/** A published holding, with the writer's pid as this process sees it. */
export interface Holding extends PublishedProcess {
  readonly hostPid: number;
}
export interface PublishedState {
  readonly holdings: readonly Holding[];
  readonly changes: readonly Exclude<Published, PublishedProcess>[];
  readonly notes: readonly string[];
}

interface Entry {
  readonly stamp: string;
  readonly value: Published | undefined;
  readonly error: string | undefined;
  /** Resolved once: a pid that is used again belongs to another process. */
  identity?: { readonly pid: number; readonly startTicks: string } | undefined;
}

/** The folder in which processes say how much simulated memory they hold. */
export class PublishedFolder {
  readonly #folder: string;
  readonly #entries = new Map<string, Entry>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Rereads what changed. A holding whose process is gone is no longer reported. */
  read(): PublishedState {
    const names = this.#names();
    const present = new Set(names);
    for (const name of this.#entries.keys()) if (!present.has(name)) this.#entries.delete(name);
    const holdings: Holding[] = [];
    const changes: Exclude<Published, PublishedProcess>[] = [];
    const notes: string[] = [];
    for (const name of names) {
      const entry = this.#refresh(name);
      if (entry?.error !== undefined) notes.push(entry.error);
      if (entry?.value === undefined) continue;
      if (!("pid" in entry.value)) changes.push(entry.value);
      else if (holds(entry, entry.value)) {
        holdings.push({ ...entry.value, hostPid: entry.identity?.pid ?? entry.value.pid });
      }
    }
    return { holdings, changes, notes };
  }

  #names(): string[] {
    try {
      return readdirSync(this.#folder)
        .filter((name) => name.endsWith(".json"))
        .sort();
    } catch {
      return [];
    }
  }

  #refresh(name: string): Entry | undefined {
    const path = join(this.#folder, name);
    const known = this.#entries.get(name);
    try {
      const { mtimeNs, size, ino } = statSync(path, { bigint: true });
      const stamp = `${ino}:${size}:${mtimeNs}`;
      if (known?.stamp === stamp) return known;
      const entry = parseEntry(stamp, path, known);
      this.#entries.set(name, entry);
      return entry;
    } catch {
      this.#entries.delete(name);
      return undefined;
    }
  }
}

function parseEntry(stamp: string, path: string, known: Entry | undefined): Entry {
  try {
    const value = publishedSchema.parse(JSON.parse(readFileSync(path, "utf8")));
    const isSameWriter =
      "pid" in value && known?.value !== undefined && "pid" in known.value
        ? value.pid === known.value.pid && value.pid_namespace === known.value.pid_namespace
        : false;
    return { stamp, value, error: undefined, identity: isSameWriter ? known?.identity : undefined };
  } catch (error) {
    // Written without a rename, or not ours: the last good content stays.
    const reason = error instanceof Error ? error.message : String(error);
    return {
      stamp,
      value: known?.value,
      error: `${path} is not a published allocation: ${reason.slice(0, 200)}`,
      identity: known?.identity,
    };
  }
}

function holds(entry: Entry, value: PublishedProcess): boolean {
  entry.identity ??= identify(value);
  if (entry.identity === undefined) return false;
  const { pid, startTicks } = entry.identity;
  if (startTicks === "") return isAlive(pid);
  const facts = processFacts(pid);
  return facts !== undefined && !facts.isZombie && facts.startTicks === startTicks;
}

function identify(value: PublishedProcess): Entry["identity"] {
  const namespace = value.pid_namespace ?? undefined;
  const pid = namespace === undefined ? value.pid : pidFromNamespace(value.pid, namespace);
  if (pid === undefined) return undefined;
  return { pid, startTicks: processFacts(pid)?.startTicks ?? "" };
}
