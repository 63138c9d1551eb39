/**
 * Run by npm after it has installed this worker: adds the prebuilt llama.cpp that this machine needs
 * and package.json leaves out, for a GPU or for another processor. The version is node-llama-cpp's own.
 *
 * `node select-engine.js NAME…` adds builds by name, such as `linux-x64-vulkan`.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
// The host links its SDK after npm has run: nothing of it is here yet.
import { isRecord } from "./record.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
const SCOPE = join(HERE, "node_modules", "@node-llama-cpp");

/** The build of every machine but those of package.json: CPU, on macOS with Metal. */
const OWN: ReadonlyMap<string, string> = new Map([
  ["linux-arm64", "linux-arm64"],
  ["darwin-arm64", "mac-arm64-metal"],
  ["darwin-x64", "mac-x64"],
  ["win32-x64", "win-x64"],
]);

/** Names of the builds that are missing here; empty where the CPU build of package.json will do. */
export function neededBuilds(
  machine: { readonly platform: string; readonly arch: string },
  hasNvidia: boolean,
): string[] {
  const name = `${machine.platform}-${machine.arch}`;
  const own = OWN.get(name);
  if (own !== undefined) return [own];
  return name === "linux-x64" && hasNvidia ? ["linux-x64-cuda", "linux-x64-cuda-ext"] : [];
}

function add(builds: readonly string[]): boolean {
  const file = join(HERE, "node_modules", "node-llama-cpp", "package.json");
  const library: unknown = JSON.parse(readFileSync(file, "utf8"));
  const version = isRecord(library) ? String(library["version"]) : "latest";
  const folder = join(HERE, "engines");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true }));
  const packages = builds.map((build) => `@node-llama-cpp/${build}@${version}`);
  const quiet = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"];
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const { status } = spawnSync(npm, ["install", "--prefix", folder, ...quiet, ...packages], {
    cwd: folder,
    stdio: "inherit",
  });
  if (status !== 0) return false;
  for (const build of builds) {
    const link = join(SCOPE, build);
    rmSync(link, { recursive: true, force: true });
    symlinkSync(join(folder, "node_modules", "@node-llama-cpp", build), link, "dir");
  }
  return true;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const named = process.argv.slice(2);
  const builds = named.length > 0 ? named : neededBuilds(process, existsSync("/dev/nvidiactl"));
  if (builds.length > 0 && !add(builds)) {
    process.stderr.write(`${builds.join(", ")} could not be added: the CPU build serves\n`);
    // Named by hand it is an error; chosen by itself the CPU build is enough to go on.
    process.exitCode = named.length > 0 ? 1 : 0;
  }
}
