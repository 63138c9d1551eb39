import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readlinkSync, rmdirSync } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, test } from "vitest";
import {
  candidatePlaces,
  type CgroupPlace,
  cgroupPlace,
  deathError,
  endSessionProcesses,
  identify,
  type ProcessIdentity,
  WorkerCgroup,
} from "../../../src/process/index.ts";
import { sweepProbes } from "../../../src/process/cgroup.ts";
import { randomHex } from "../../../src/util/ids.ts";
import { gone } from "./support.ts";

/** A shell, and a grandchild that has left its session and its parent. */
const FAMILY = "setsid sh -c 'sleep 600 & echo $!' & wait; echo $$; exec sleep 600";

const search = await cgroupPlace();
const places = await usable(candidatePlaces());

async function usable(candidates: readonly CgroupPlace[]): Promise<readonly CgroupPlace[]> {
  const found: CgroupPlace[] = [];
  for (const place of candidates) {
    try {
      await (await WorkerCgroup.create(place, `test-${randomHex(4)}`)).remove();
      found.push(place);
    } catch {
      // Not allowed here.
    }
  }
  return found;
}

/** Starts a command in a group; answers with who printed its pid. */
async function start(
  cgroup: WorkerCgroup,
  script: string,
  lines: number,
): Promise<readonly ProcessIdentity[]> {
  const [program = "", ...args] = cgroup.command(["sh", "-c", script]);
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
  const members: ProcessIdentity[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    members.push(...[identify(Number(line)) ?? []].flat());
    if (members.length === lines) break;
  }
  return members;
}

describe.each(places.map((place) => [place.parents.join(" and "), place] as const))(
  "a control group below %s",
  (_, place) => {
    test("is ended whole, with what left its session, and leaves no folder", async () => {
      const session = `test-${randomHex(4)}`;
      const cgroup = await WorkerCgroup.create(place, session);
      const members = await start(cgroup, FAMILY, 2);
      expect(members.length).toBe(2);
      await cgroup.kill();
      await gone(members);
      await cgroup.remove();
      expect(await foldersOf(place, session)).toEqual([]);
    });
  },
);

test.skipIf(!("place" in search))(
  "what an earlier host left in a control group is ended, whatever its environment",
  async () => {
    if (!("place" in search)) return;
    const session = `test-${randomHex(4)}`;
    const cgroup = await WorkerCgroup.create(search.place, session);
    const members = await start(cgroup, FAMILY, 2);
    await endSessionProcesses((id) => id === session);
    await gone(members);
    expect(await foldersOf(search.place, session)).toEqual([]);
  },
);

test.skipIf(places.length === 0)(
  "what a killed probe left is removed, one that is under way or of others is not",
  async () => {
    const parent = places[0]?.parents[0] ?? "";
    const [, space = ""] = /(?<space>\d+)/u.exec(readlinkSync("/proc/self/ns/pid")) ?? [];
    const startTicks = identify(process.pid)?.startTicks ?? 0;
    const tag = randomHex(4);
    const names = {
      ended: `cjm-worker-probe-${space}-${process.pid}-${startTicks - 1}-${tag}`,
      running: `cjm-worker-probe-${space}-${process.pid}-${startTicks}-${tag}`,
      elsewhere: `cjm-worker-probe-1${space}-1-1-${tag}`,
      worker: `cjm-worker-${tag}`,
    };
    for (const name of Object.values(names)) mkdirSync(join(parent, name));
    await sweepProbes(parent);
    const left = readdirSync(parent).filter((name) => name.endsWith(tag));
    for (const name of left) rmdirSync(join(parent, name));
    expect(left.toSorted()).toEqual([names.running, names.elsewhere, names.worker].toSorted());
  },
);

const limited = places.find(
  ({ memory }) => memory !== undefined && limitFile(memory) !== undefined,
);

test.skipIf(limited === undefined)(
  "processes that the kernel killed for memory are counted",
  async () => {
    const { memory = "" } = limited ?? {};
    const session = `test-${randomHex(4)}`;
    const cgroup = await WorkerCgroup.create(limited ?? { parents: [] }, session);
    const limit = join(memory, `cjm-worker-${session}`, limitFile(memory) ?? "");
    await writeFile(limit, String(16 << 20));
    expect(cgroup.oomKills()).toBe(0);
    const [program = "", ...args] = cgroup.command(["tail", "/dev/zero"]);
    const child = spawn(program, args, { stdio: "ignore" });
    await once(child, "exit");
    expect(child.signalCode).toBe("SIGKILL");
    expect(cgroup.oomKills()).toBe(1);
    await cgroup.remove();
  },
);

test("a worker that failed after the kernel killed one of its processes ran out of memory", () => {
  const exit = { code: 1, signal: null, bye: null, isEndedByHost: false, oomKills: 1 };
  expect(deathError("greedy", exit)).toMatchObject({ code: "WORKER_OOM", category: "resource" });
  expect(deathError("greedy", { ...exit, oomKills: 0 })).toMatchObject({
    code: "WORKER_EXITED",
    category: "transient",
  });
  expect(deathError("greedy", { ...exit, isEndedByHost: true }).code).toBe("WORKER_EXITED");
});

function limitFile(memory: string): string | undefined {
  // Version 2 shows the file below the top alone.
  if (existsSync(join(memory, "memory.limit_in_bytes"))) return "memory.limit_in_bytes";
  return existsSync(join(memory, "memory.max")) ? "memory.max" : undefined;
}

async function foldersOf({ parents }: CgroupPlace, session: string): Promise<string[]> {
  const names = await Promise.all(parents.map((parent) => readdir(parent)));
  return names.flat().filter((name) => name.endsWith(session));
}
