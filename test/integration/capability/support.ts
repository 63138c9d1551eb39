import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { createPipeline, type Pipeline, type PipelineOptions } from "../../../src/host/pipeline.ts";
import { hashCanonical } from "../../../src/util/canonical-json.ts";
import { isRecord } from "../../../src/util/record.ts";
import type { JournalEvent } from "../../../src/store/index.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const described = new Map<string, Record<string, unknown>>();

export function fixtureCommand(fixture: string): string[] {
  const script = join(ROOT, "test/fixtures/workers", `${fixture}.ts`);
  return [process.execPath, "-C", "@cjm/source", script];
}

/** What a fixture worker says of itself, as provisioning would ask it. */
function describeWorker(fixture: string): Record<string, unknown> {
  const known = described.get(fixture);
  if (known !== undefined) return known;
  const [node = "", ...args] = fixtureCommand(fixture);
  const env = { ...process.env, CJM_INTROSPECT: "1" };
  const code: unknown = JSON.parse(execFileSync(node, args, { env, encoding: "utf8" }));
  if (!isRecord(code)) throw new Error(`${fixture} does not describe itself`);
  described.set(fixture, code);
  return code;
}

export interface ManifestChanges {
  readonly code?: Readonly<Record<string, unknown>>;
  readonly install?: Readonly<Record<string, unknown>>;
  readonly overrides?: Readonly<Record<string, unknown>>;
  readonly drift_tracking?: Readonly<Record<string, unknown>>;
}

/** A project with a data directory and hand-written manifests, of which hosts can be made. */
export class Project implements AsyncDisposable {
  readonly folder: string;
  readonly manifests: string;

  private constructor(folder: string) {
    this.folder = folder;
    this.manifests = join(folder, "data", "manifests");
  }

  static async create(): Promise<Project> {
    const project = new Project(await mkdtemp(join(tmpdir(), "cjm-l-")));
    await mkdir(project.manifests, { recursive: true });
    await writeFile(
      join(project.folder, "cjm.yaml"),
      "data_dir: data\nsubstrate:\n  prefetch_stall_threshold_seconds: 5\n",
    );
    return project;
  }

  /** Writes the manifest of a fixture that uses the SDK. */
  async add(fixture: string, changes: ManifestChanges = {}): Promise<void> {
    const described = describeWorker(fixture);
    await this.write(fixture, { ...changes, code: { ...described, ...changes.code } }, described);
  }

  /** Writes the manifest of a fixture that cannot describe itself. */
  async addRaw(fixture: string, name: string, changes: ManifestChanges = {}): Promise<void> {
    const code = { name, version: "1", sdk: "cjm", protocol: 1, ...changes.code };
    await this.write(fixture, { ...changes, code });
  }

  async write(
    fixture: string,
    changes: ManifestChanges,
    witness?: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const manifest = {
      format_version: "2.0",
      install: { command: fixtureCommand(fixture), ...changes.install },
      code: changes.code,
      drift_tracking: {
        ...(witness !== undefined && {
          config_schema_hash: hashCanonical(witness["config_schema"]),
          structural_surface_hash: hashCanonical(witness["structural_surface"]),
        }),
        ...changes.drift_tracking,
      },
      overrides: changes.overrides ?? {},
    };
    const name = changes.code?.["name"];
    const path = join(this.manifests, `${typeof name === "string" ? name : fixture}.json`);
    await writeFile(path, JSON.stringify(manifest));
  }

  async writeConfig(yaml: string): Promise<void> {
    await writeFile(join(this.folder, "cjm.yaml"), `data_dir: data\n${yaml}`);
  }

  async open(options: PipelineOptions = {}): Promise<Pipeline> {
    return await createPipeline({ cwd: this.folder, ...options });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Runs an action as a job and waits for it. */
export async function run(
  pipeline: Pipeline,
  instance: string,
  action: string,
  kwargs: Readonly<Record<string, unknown>> = {},
): Promise<unknown> {
  const handle = await pipeline.queue.submit(instance, kwargs, { action });
  return await handle.result();
}

/** Journal rows of one type, oldest first. */
export async function rows(
  pipeline: Pipeline,
  eventType: string,
): Promise<readonly JournalEvent[]> {
  return await pipeline.journal.query({ eventType });
}

/** Resolves when the journal has `count` rows of this type. */
export async function until(fits: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await fits())) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Matches a text that holds `part`. */
export function containing(part: string): unknown {
  return expect.stringContaining(part);
}

/** What a promise was rejected with. */
export async function failure(promise: PromiseLike<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("nothing failed");
}
