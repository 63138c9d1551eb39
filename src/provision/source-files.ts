import { createHash } from "node:crypto";
import { createReadStream, existsSync, type Dirent } from "node:fs";
import { copyFile, mkdir, readdir, stat } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { CjmError } from "../errors/index.ts";

/** Folders that tools make beside a worker's source. */
const SKIPPED_FOLDERS = new Set(["node_modules", "__pycache__", "venv"]);
const PYTHON_PROJECT = new Set(["pyproject.toml", "setup.py"]);
const MAX_SOURCE_FILES = 20_000;

/** One file of a worker's source. */
export interface SourceFile {
  /** Relative to the folder, with `/` separators. */
  readonly name: string;
  readonly path: string;
}

/**
 * The files of a worker's source, sorted by name, without hidden files, `node_modules`, caches and
 * virtual environments. A link to a file counts as that file; a link to a folder is left out.
 *
 * @throws {CjmError} `INSTALL_FAILED` for a folder that is not there or holds over 20,000 files.
 */
export async function listSource(folder: string): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  await walk(folder, folder, files);
  return files.sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function walk(root: string, folder: string, files: SourceFile[]): Promise<void> {
  const items = await entriesOf(folder);
  // pip builds a Python project where it is; elsewhere `build` may hold the worker itself.
  const isProject = items.some(({ name }) => PYTHON_PROJECT.has(name));
  for (const item of items) {
    const path = join(folder, item.name);
    if (isSkipped(item.name) || (isProject && item.name === "build")) continue;
    if (item.isDirectory()) {
      await walk(root, path, files);
    } else if (item.isFile() || (item.isSymbolicLink() && (await stat(path)).isFile())) {
      files.push({ name: relative(root, path).split(sep).join("/"), path });
    }
    if (files.length > MAX_SOURCE_FILES) {
      const message = `${root} holds over ${MAX_SOURCE_FILES} files; is it the worker's own folder?`;
      throw new CjmError("INSTALL_FAILED", message, { category: "user_input" });
    }
  }
}

async function entriesOf(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    throw new CjmError("INSTALL_FAILED", `${folder}: cannot be read: ${String(error)}`, {
      cause: error,
      category: "user_input",
    });
  }
}

function isSkipped(name: string): boolean {
  if (name.startsWith(".") || SKIPPED_FOLDERS.has(name)) return true;
  return name.endsWith(".pyc") || name.endsWith(".egg-info");
}

/** `sha256:<hex>` of the names and contents of files. */
export async function hashFiles(files: readonly SourceFile[]): Promise<string> {
  const hash = createHash("sha256");
  for (const { name, path } of files) {
    const content = createHash("sha256");
    await pipeline(createReadStream(path), content);
    hash.update(`${content.digest("hex")} ${name}\n`);
  }
  return `sha256:${hash.digest("hex")}`;
}

/** A package spec as it counts: one that is a path, editable or not, by its content. */
export async function hashPackage(spec: string): Promise<string> {
  const path = spec.replace(/^-e\s+/u, "");
  if (!path.startsWith("/") || !existsSync(path)) return spec;
  const isFile = (await stat(path)).isFile();
  return hashFiles(isFile ? [{ name: path, path }] : await listSource(path));
}

export async function copyFiles(files: readonly SourceFile[], target: string): Promise<void> {
  const made = new Set<string>();
  for (const { name, path } of files) {
    const to = join(target, name);
    if (!made.has(dirname(to))) {
      await mkdir(dirname(to), { recursive: true });
      made.add(dirname(to));
    }
    await copyFile(path, to);
  }
}
