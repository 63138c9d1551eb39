import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Absent } from "../report.ts";

/** A server of a peer, with its files in a temporary folder; both are gone at the end. */
export interface Server extends AsyncDisposable {
  /** A Unix socket, or the folder of one. */
  readonly socket: string;
}

/**
 * Redis that answers a write when it is on disk (`appendfsync always`), as our journal does, or once
 * a second (`everysec`, what its users mostly run).
 *
 * @throws {Absent} without `redis-server` on PATH.
 */
export async function startRedis(appendfsync: "always" | "everysec"): Promise<Server> {
  const folder = mkdtempSync(join(tmpdir(), "bench-redis-"));
  const socket = join(folder, "redis.sock");
  needs("redis-server", ["--version"]);
  const options = {
    port: "0",
    unixsocket: socket,
    dir: folder,
    save: "",
    appendonly: "yes",
    appendfsync,
    "maxmemory-policy": "noeviction",
  };
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
  const child = spawn("redis-server", args, { stdio: "ignore" });
  const ready = (): boolean => existsSync(socket);
  return await running(child, { folder, socket, ready });
}

/**
 * PostgreSQL with its default durability (`synchronous_commit` on).
 *
 * @throws {Absent} where it is not installed.
 */
export async function startPostgres(): Promise<Server> {
  const programs = postgresPrograms();
  const folder = mkdtempSync(join(tmpdir(), "bench-postgres-"));
  const data = join(folder, "data");
  const user = serverUser();
  if (user !== undefined) chownSync(folder, user.uid, user.gid);
  const init = ["-D", data, "-U", "bench", "--auth=trust", "--encoding=UTF8"];
  const made = spawnSync(join(programs, "initdb"), init, {
    ...user,
    cwd: folder,
    encoding: "utf8",
  });
  if (made.status !== 0) throw new Absent("initdb", made.stderr.trim().split("\n").at(-1) ?? "");
  const args = ["-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "max_connections=200"];
  const child = spawn(join(programs, "postgres"), args, { ...user, cwd: folder, stdio: "ignore" });
  const ready = (): boolean => spawnSync(join(programs, "pg_isready"), ["-h", folder]).status === 0;
  return await running(child, { folder, socket: folder, ready });
}

function postgresPrograms(): string {
  const root = "/usr/lib/postgresql";
  try {
    const version =
      readdirSync(root)
        .toSorted((a, b) => Number(a) - Number(b))
        .at(-1) ?? "";
    return join(root, version, "bin");
  } catch {
    throw new Absent(`ls ${root}`, "PostgreSQL is not installed");
  }
}

/** It refuses to run as root. */
function serverUser(): { readonly uid: number; readonly gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string): number =>
    Number(spawnSync("id", [flag, "postgres"], { encoding: "utf8" }).stdout);
  return { uid: id("-u"), gid: id("-g") };
}

function needs(file: string, args: readonly string[]): void {
  if (spawnSync(file, args).error !== undefined) throw new Absent(file, `${file} is not on PATH`);
}

async function running(
  child: ChildProcess,
  { folder, socket, ready }: { folder: string; socket: string; ready: () => boolean },
): Promise<Server> {
  const ended = once(child, "exit");
  while (!ready()) {
    if (child.exitCode !== null) throw new Absent(child.spawnfile, `exit code ${child.exitCode}`);
    await sleep(20);
  }
  return {
    socket,
    async [Symbol.asyncDispose]() {
      child.kill("SIGINT");
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
