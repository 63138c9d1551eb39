import { existsSync } from "node:fs";
import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { hostPackage } from "../../config/index.ts";
import { CjmError } from "../../errors/index.ts";
import type { BuildContext, EnvironmentKind, EnvironmentSpec, WorkerStart } from "../kind.ts";
import { runCommand } from "../run-command.ts";
import { copyFiles, hashFiles, hashPackage, listSource, type SourceFile } from "../source-files.ts";

const packageSchema = z.looseObject({
  name: z.string().optional(),
  main: z.string().optional(),
  dependencies: z.record(z.string(), z.string()).default({}),
  optionalDependencies: z.record(z.string(), z.string()).default({}),
});

const ENTRIES = ["main.js", "main.mjs", "main.ts", "index.js", "index.ts"];

/** A folder with its own `node_modules`; `cjm-substrate` in it is the host's own package. */
export const npmKind: EnvironmentKind = {
  async inputs(spec) {
    return {
      node: [process.version, process.execPath],
      source: await hashFiles(await sourceOf(spec)),
      package: await hashPackage(spec.entry.package ?? ""),
      host: hostPackage().root,
    };
  },

  async build(spec, folder, context) {
    if (spec.sourceDir === undefined) {
      const dependencies = { name: `cjm-env-${spec.name.toLowerCase()}`, private: true };
      await writeFile(join(folder, "package.json"), `${JSON.stringify(dependencies, null, 2)}\n`);
      context.step(`npm install ${spec.entry.package ?? ""}`);
      await npm(["install", "--install-links", spec.entry.package ?? ""], folder, context);
    } else {
      context.step("copying the worker");
      await copyFiles(await sourceOf(spec), folder);
      await installDependencies(spec.sourceDir, folder, context);
    }
    await linkHost(folder);
  },

  async start(spec, folder): Promise<WorkerStart> {
    const command = [process.execPath, await entryOf(spec, folder)];
    return { command, introspect: command };
  },
};

async function sourceOf({ sourceDir, compiledDir, name }: EnvironmentSpec): Promise<SourceFile[]> {
  if (sourceDir === undefined) return [];
  const files = await listSource(sourceDir);
  if (compiledDir === undefined) return files;
  if (!existsSync(compiledDir)) {
    throw new CjmError(
      "SETUP_REQUIRED",
      `${compiledDir} is missing: worker "${name}" is not built; run \`npm run build\``,
    );
  }
  const compiled = await listSource(compiledDir);
  return [...files.filter((file) => !file.name.endsWith(".ts")), ...compiled];
}

async function installDependencies(
  source: string,
  folder: string,
  context: BuildContext,
): Promise<void> {
  const { dependencies, optionalDependencies } = await readPackage(join(source, "package.json"));
  const names = Object.keys({ ...dependencies, ...optionalDependencies });
  if (names.length === 0) return;
  const isLocked =
    existsSync(join(folder, "package-lock.json")) ||
    existsSync(join(folder, "npm-shrinkwrap.json"));
  context.step(`npm ${isLocked ? "ci" : "install"} (${names.length} packages named)`);
  await npm([isLocked ? "ci" : "install"], folder, context);
}

async function npm(
  args: readonly string[],
  folder: string,
  { env, signal, log }: BuildContext,
): Promise<void> {
  const quiet = ["--omit=dev", "--no-audit", "--no-fund", "--no-progress", "--no-workspaces"];
  await runCommand(["npm", ...args, ...quiet], { cwd: folder, env, signal, log });
}

async function readPackage(path: string): Promise<z.output<typeof packageSchema>> {
  try {
    return packageSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
    const reason = isMissing ? "no such file" : String(error);
    throw new CjmError("INSTALL_FAILED", `${path}: ${reason}`, {
      cause: error,
      category: "user_input",
    });
  }
}

/** A worker gets exactly the SDK of the host that starts it. */
async function linkHost(folder: string): Promise<void> {
  const link = join(folder, "node_modules", "cjm-substrate");
  await mkdir(join(folder, "node_modules"), { recursive: true });
  await rm(link, { recursive: true, force: true });
  await symlink(hostPackage().root, link, "dir");
}

async function entryOf(spec: EnvironmentSpec, folder: string): Promise<string> {
  const root = await packageRoot(spec, folder);
  const { main } = await readPackage(join(root, "package.json"));
  const named = spec.entry.entry ?? main;
  const candidates = named === undefined ? ENTRIES : [named];
  const found = candidates.map((name) => join(root, name)).find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new CjmError(
    "INSTALL_FAILED",
    `Worker "${spec.name}" has none of ${candidates.join(", ")}; name its file with \`entry\``,
    { category: "user_input" },
  );
}

/** Where the worker's own package.json is: the environment itself, or the one package in it. */
async function packageRoot(spec: EnvironmentSpec, folder: string): Promise<string> {
  if (spec.sourceDir !== undefined) return folder;
  const { dependencies } = await readPackage(join(folder, "package.json"));
  return join(folder, "node_modules", Object.keys(dependencies)[0] ?? "");
}
