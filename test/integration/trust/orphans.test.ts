import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import {
  cgroupPlace,
  identify,
  isAlive,
  killExactly,
  probeCage,
  type ProcessIdentity,
  SESSION_VARIABLE,
} from "../../../src/process/index.ts";
import { dataDirIdentity } from "../../../src/process/run-folder.ts";
import { emptied, Nest, type NestHost } from "../../chaos/orphans/nest.ts";

const { cage: strongest } = await probeCage();
const hasCgroups = "place" in (await cgroupPlace());
const MARKED = ["fork", "double-fork", "setsid", "ignore-term", "stopped", "holds-pipes"];
const ALL = [...MARKED, "forks-on", "no-environment"];

async function pidsOf(host: NestHost): Promise<number[]> {
  return (await host.until("ready"))["pids"] as number[];
}

describe.skipIf(strongest !== "pidns")("where a PID namespace holds each worker", () => {
  test("a host's SIGKILL leaves nobody of any kind, and the next host nothing on disk", async () => {
    await using nest = await Nest.create({ cage: "auto", kinds: ALL });
    {
      await using host = nest.start();
      await pidsOf(host);
      const everyone = await host.kill();
      expect(everyone.length).toBeGreaterThan(2 * ALL.length);
      await emptied(nest, everyone);
    }
    await using next = nest.start("stop");
    await next.until("stopped");
    await next.exited();
    expect(await nest.leftovers()).toEqual([]);
    expect(new Set(await nest.cages())).toEqual(new Set(["pidns"]));
    expect(await nest.journal("orphan_ended")).toEqual([]);
  });

  test("a host killed while it spawns, or while it evicts, leaves nobody", async () => {
    await using nest = await Nest.create({ cage: "auto", kinds: ALL, isStubborn: true });
    for (const [what, moment] of [
      ["wait", "opened"],
      ["evict", "evicting"],
    ] as const) {
      await using host = nest.start(what);
      await host.until(moment);
      await emptied(nest, await host.kill());
    }
  });

  test("a worker's SIGKILL takes its whole brood, and the host goes on", async () => {
    await using nest = await Nest.create({ cage: "auto", kinds: ALL });
    await using host = nest.start();
    const [first = 0] = await pidsOf(host);
    const before = host.family();
    process.kill(first, "SIGKILL");
    const { isGone } = await survivors(before, host);
    expect(isGone).toBeGreaterThan(ALL.length);
    await emptied(nest, await host.kill());
  });
});

/** Waits until about half of the family, one worker's part, is gone. */
async function survivors(
  before: readonly ProcessIdentity[],
  host: NestHost,
): Promise<{ isGone: number }> {
  for (;;) {
    const isGone = before.filter((member) => !isAlive(member)).length;
    if (isGone > ALL.length) return { isGone };
    if (host.family().length === 0) throw new Error("the host is gone too");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe.skipIf(!hasCgroups)("where only a control group holds each worker", () => {
  test("what a killed host leaves, whatever its environment, ends with the next one's start", async () => {
    await using nest = await Nest.create({ cage: "cgroup", kinds: ALL });
    const everyone: ProcessIdentity[] = [];
    {
      await using host = nest.start();
      await pidsOf(host);
      everyone.push(...(await host.kill()));
      expect(everyone.filter(isAlive).length).toBeGreaterThan(2);
    }
    await using next = nest.start("stop");
    await next.until("opened");
    expect(everyone.filter(isAlive)).toEqual([]);
    await next.until("stopped");
    await next.exited();
    expect(await nest.leftovers()).toEqual([]);
    expect(await nest.marked()).toEqual([]);
    expect(new Set(await nest.cages())).toEqual(new Set(["cgroup"]));
  });
});

describe("where there is no cage", () => {
  test("what a killed host leaves is found and ended by the next, and nobody else is", async () => {
    await using nest = await Nest.create({ cage: "group", kinds: MARKED });
    const identity = dataDirIdentity(`${nest.folder}/data`);
    // As a leftover would look that is none: another data directory's, and only an argument.
    const strangers = [
      stranger({ [SESSION_VARIABLE]: `${"0".repeat(16)}-00000000-000000000000` }),
      stranger({ OTHER: `${SESSION_VARIABLE}=${identity}-00000000-000000000000` }),
    ];
    try {
      {
        await using host = nest.start();
        const pids = await pidsOf(host);
        // Stopped, they do not see their host go, and do nothing about it.
        for (const pid of pids) process.kill(pid, "SIGSTOP");
        const everyone = await host.kill();
        expect(everyone.filter(isAlive).length).toBeGreaterThan(2);
      }
      const leftover = stranger({ [SESSION_VARIABLE]: `${identity}-00000000-000000000000` });
      strangers.push(leftover);
      const ended = once(leftover, "exit");
      await using next = nest.start();
      await next.until("opened");
      await ended;
      const rows = await nest.journal("orphan_ended");
      expect(rows.length).toBeGreaterThan(2);
      expect(rows.map(({ payload }) => payload["pid"])).toContain(leftover.pid);
      expect(strangers.map(({ signalCode }) => signalCode)).toEqual([null, null, "SIGKILL"]);
      await pidsOf(next);
      expect(new Set(await nest.cages())).toEqual(new Set(["group"]));
    } finally {
      for (const one of strangers) one.kill("SIGKILL");
    }
  });

  test("a host that stops ends every kind, those without an environment too", async () => {
    await using nest = await Nest.create({ cage: "group", kinds: [...MARKED, "no-environment"] });
    await using host = nest.start("stop");
    await pidsOf(host);
    const family = host.family();
    await host.until("stopped");
    await emptied(nest, family);
  });
});

function stranger(env: Readonly<Record<string, string>>): ReturnType<typeof spawn> {
  return spawn("sleep", ["1000"], { stdio: "ignore", env: { PATH: process.env["PATH"], ...env } });
}

test("a process that has another's pid is not taken for it", async () => {
  const child = stranger({});
  const { pid = 0 } = child;
  const now = identify(pid);
  killExactly({ pid, startTicks: (now?.startTicks ?? 0) - 1 });
  expect(isAlive({ pid, startTicks: (now?.startTicks ?? 0) - 1 })).toBe(false);
  expect(now !== undefined && isAlive(now)).toBe(true);
  if (now !== undefined) killExactly(now);
  expect(await once(child, "exit")).toEqual([null, "SIGKILL"]);
});
