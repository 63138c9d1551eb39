import { readdirSync, readFileSync } from "node:fs";
import type { Workbench } from "../../../workers/sandbox/workbench.ts";

/** What jails could leave on a machine. */
export interface Leftovers {
  readonly processes: number;
  readonly mounts: number;
  readonly cgroups: number;
  readonly files: number;
  readonly descriptors: number;
}

/** Counts what belongs to this process and its jails, once the jail that is kept ready is ended. */
export async function leftovers({ cgroups, scratch, reserve }: Workbench): Promise<Leftovers> {
  await reserve.clear();
  const parents = cgroups.parent === null ? [] : Object.values(cgroups.parent.folders);
  return {
    processes: descendants(process.pid),
    mounts: readFileSync("/proc/self/mounts", "utf8").split("\n").length,
    cgroups: [...new Set(parents)]
      .flatMap((folder) => readdirSync(folder))
      .filter((name) => name.startsWith(`cjm-jail-${process.pid}-`)).length,
    files: readdirSync(scratch.folder).filter((name) => !name.startsWith("slot-")).length,
    descriptors: readdirSync("/proc/self/fd").length,
  };
}

/** Live processes below one, without the ones Vitest itself keeps. */
function descendants(root: number): number {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/u.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "latin1");
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // Gone meanwhile.
    }
  }
  const below = new Set([root]);
  for (const pid of below) {
    for (const [child, parent] of parents) if (parent === pid) below.add(child);
  }
  return below.size - 1;
}
