import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Tells whether a running process was started from inside a folder, by the process table of now. */
export async function foldersInUse(): Promise<(folder: string) => boolean> {
  const commands = process.platform === "linux" ? await linuxCommands() : await listedCommands();
  return (folder) => commands.some((command) => command.includes(`${folder}/`));
}

async function linuxCommands(): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name));
  const commands = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  );
  return commands.map((command) => command.replaceAll("\0", " "));
}

async function listedCommands(): Promise<string[]> {
  const { stdout } = await run("ps", ["-axww", "-o", "command="], { maxBuffer: 64 * 1024 * 1024 });
  return stdout.split("\n");
}
