import { realpathSync } from "node:fs";
import { CjmError } from "cjm-substrate/worker";
import type { RunEngine } from "./jail-reserve.ts";
import type { Interpreter, Language } from "./languages.ts";
import { INPUT_FOLDER, WORK_FOLDER, type JailPolicy, type Mount } from "./policy.ts";
import { identityHere } from "./probe.ts";
import { guestPath, programMount } from "./sandbox-root.ts";
import type { IsolationChoice, LimitsInput } from "./schemas.ts";
import { temporaryWorkFolder, type WorkFolder } from "./work-folders.ts";
import type { Workbench } from "./workbench.ts";

const GUEST_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/** Where a run happens; the same for every action that starts jails. */
export interface Place {
  readonly language: Language;
  readonly isolation: IsolationChoice;
  readonly limits: LimitsInput;
  readonly input_dirs: Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, string>>;
  readonly workspace?: string | undefined;
}

/** A place made ready: the engine, and a policy that lacks only the words of the command. */
export interface Site extends Disposable {
  readonly engine: RunEngine;
  readonly policy: JailPolicy;
  /** The first words of a command in the place's language; none for `command`. */
  readonly interpreter: readonly string[];
}

/**
 * Makes a place ready. Dispose of it after the last run in it.
 *
 * @throws {CjmError} `ISOLATION_UNAVAILABLE`, `SETUP_REQUIRED`, or `CAPABILITY_INPUT` for an option
 * that the isolation cannot honour.
 */
export async function openSite(
  workbench: Workbench,
  place: Place,
  signal: AbortSignal,
): Promise<Site> {
  const engine = await workbench.engine(place.isolation);
  const interpreter =
    place.language === "command" ? undefined : await workbench.interpreter(place.language);
  const folder = await workFolder(workbench, place, signal);
  try {
    const policy =
      engine.backend.name === "none"
        ? openPolicy(workbench, place, folder)
        : jailedPolicy(workbench, place, { interpreter, folder });
    const dispose = (): void => folder?.[Symbol.dispose]();
    return {
      engine,
      policy,
      interpreter: interpreter === undefined ? [] : [programPath(engine, interpreter)],
      [Symbol.dispose]: dispose,
    };
  } catch (error) {
    folder?.[Symbol.dispose]();
    throw error;
  }
}

function programPath({ backend }: RunEngine, { path, guestPath }: Interpreter): string {
  return backend.name === "none" ? path : guestPath;
}

async function workFolder(
  workbench: Workbench,
  { workspace, isolation }: Place,
  signal: AbortSignal,
): Promise<WorkFolder | undefined> {
  if (workspace !== undefined) return workbench.workspaces.open(workspace, signal);
  return isolation === "none" ? temporaryWorkFolder(workbench.scratch.folder) : undefined;
}

function jailedPolicy(
  workbench: Workbench,
  place: Place,
  { interpreter, folder }: { interpreter: Interpreter | undefined; folder: WorkFolder | undefined },
): JailPolicy {
  const packages = packagesOf(workbench, place.language);
  const mounts = [
    ...workbench.mounts(place.input_dirs),
    ...(interpreter?.mounts ?? []),
    ...packages.flatMap((path) => programMount(path)),
  ];
  return {
    argv: [],
    identity: identityHere(),
    limits: workbench.limits(place.limits),
    mounts: folder === undefined ? mounts : withWorkFolder(mounts, folder.path),
    workSource: folder?.path,
    env: {
      PATH: GUEST_PATH,
      HOME: WORK_FOLDER,
      TMPDIR: "/tmp",
      LANG: "C.UTF-8",
      ...packageEnvironment(
        place.language,
        packages.map((path) => guestPath(realpathSync(path))),
      ),
      ...place.env,
    },
  };
}

/** Without isolation the guest has this machine's files, so a folder cannot be shown elsewhere. */
function openPolicy(
  workbench: Workbench,
  place: Place,
  folder: WorkFolder | undefined,
): JailPolicy {
  if (Object.keys(place.input_dirs).length > 0) {
    const message = `input_dirs appear under ${INPUT_FOLDER}, which needs isolation`;
    throw new CjmError("CAPABILITY_INPUT", message, { fieldsInvalid: ["input_dirs"] });
  }
  const home = folder?.path ?? "/";
  const packages = packagesOf(workbench, place.language);
  return {
    argv: [],
    identity: "same",
    limits: workbench.limits(place.limits),
    mounts: [],
    workSource: home,
    env: {
      PATH: process.env["PATH"] ?? GUEST_PATH,
      HOME: home,
      TMPDIR: home,
      LANG: "C.UTF-8",
      ...packageEnvironment(place.language, packages),
      ...place.env,
    },
  };
}

function withWorkFolder(mounts: readonly Mount[], source: string): Mount[] {
  const others = mounts.filter(({ target }) => target !== WORK_FOLDER);
  return [...others, { kind: "rw", source, target: WORK_FOLDER }];
}

function packagesOf({ options }: Workbench, language: Language): readonly string[] {
  return language === "python" || language === "node" ? (options.packages?.[language] ?? []) : [];
}

function packageEnvironment(
  language: Language,
  folders: readonly string[],
): Record<string, string> {
  if (folders.length === 0) return {};
  return { [language === "python" ? "PYTHONPATH" : "NODE_PATH"]: folders.join(":") };
}
