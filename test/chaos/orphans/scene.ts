import { setTimeout as delay } from "node:timers/promises";
import { identify, isAlive, killExactly } from "../../../src/process/index.ts";
import { startCli } from "../../support/cli.ts";
import { below, pick, randomFrom } from "../support/random.ts";
import { emptied, Nest, type NestHost, type NestOptions } from "./nest.ts";

export type SceneCage = NestOptions["cage"];
const KINDS = [
  "fork",
  "double-fork",
  "setsid",
  "ignore-term",
  "stopped",
  "holds-pipes",
  "forks-on",
];
const MOMENTS = ["ready", "ready", "ready", "mid-spawn", "mid-evict", "mid-install"] as const;
/** A kill comes at most so late: a host's workers are then up, or the first eviction is over. */
const WAIT_MS = { ready: 200, "mid-spawn": 800, "mid-evict": 600 } as const;
/** What the host has told before. */
const BEFORE = { ready: "ready", "mid-spawn": "starting", "mid-evict": "evicting" } as const;
const INSTALL_MS = 2_000;
const INNER_KILLS = 5;

/** What the kills of all scenes found. */
export interface KillTally {
  kills: number;
  readonly byMoment: Record<string, number>;
  readonly byCage: Record<string, number>;
  /** Milliseconds that the descendants of a killed one lived on, by who was killed and when. */
  readonly goneMs: Record<string, number[]>;
  /** The same where only the next host ends them, from its start on. */
  readonly foundMs: number[];
}

/** One host with its workers, killed as the seed says; nobody and nothing may be left. @throws if it is. */
export async function playScene(
  seed: number,
  cages: readonly SceneCage[],
  tally: KillTally,
): Promise<void> {
  const random = randomFrom(seed);
  const cage = pick(random, cages);
  const moment = pick(random, MOMENTS);
  // Nothing but its parent tells of one that has cleared its environment, and its parent is killed.
  const kinds = [...KINDS, "no-environment"].filter(
    (kind) => cage !== "group" || kind !== "no-environment",
  );
  await using nest = await Nest.create({
    cage,
    kinds: kinds.filter(() => random() < 0.6),
    isStubborn: random() < 0.3,
    isBuilt: true,
  });
  if (moment === "mid-install") await killInstaller(nest, random, tally);
  else await killHost(nest, { cage, moment }, random, tally);
}

function counted(tally: KillTally, moment: string, cage: SceneCage): void {
  tally.kills += 1;
  tally.byMoment[moment] = (tally.byMoment[moment] ?? 0) + 1;
  const name = cage === "auto" ? "pidns" : cage;
  tally.byCage[name] = (tally.byCage[name] ?? 0) + 1;
}

function lived({ goneMs }: KillTally, whose: string, ms: number): void {
  (goneMs[whose] ??= []).push(ms);
}

interface Scene {
  readonly cage: SceneCage;
  readonly moment: Exclude<(typeof MOMENTS)[number], "mid-install">;
}

async function killHost(
  nest: Nest,
  scene: Scene,
  random: () => number,
  tally: KillTally,
): Promise<void> {
  const { cage, moment } = scene;
  {
    await using host = nest.start(moment === "mid-evict" ? "evict" : "wait");
    await host.until(BEFORE[moment]);
    if (moment === "ready") await killInside(nest, host, { random, tally, cage });
    await delay(random() * WAIT_MS[moment]);
    counted(tally, `host, ${moment}`, cage);
    const everyone = await host.kill();
    if (cage === "auto") lived(tally, `host, ${moment}`, await emptied(nest, everyone));
  }
  // Where the kernel does not end them the next host must, and it must leave nothing itself.
  if (cage !== "auto" || random() < 0.3) await endByNextHost(nest, cage, tally);
  const expected = cage === "auto" ? "pidns" : cage;
  const others = (await nest.cages()).filter((one) => one !== expected);
  if (others.length === 0) return;
  throw new Error(`a worker was held by ${others.join()}, not by ${expected}`);
}

/** Kills workers and their descendants while their host goes on. */
async function killInside(nest: Nest, host: NestHost, kill: WorkerKill): Promise<void> {
  const { random } = kill;
  for (let left = 1 + below(random, INNER_KILLS); left > 0; left -= 1) {
    if (random() < 0.5) killChild(host, kill);
    else await killWorker(nest, host, kill);
  }
}

async function endByNextHost(nest: Nest, cage: SceneCage, tally: KillTally): Promise<void> {
  const left = await nest.marked();
  const since = performance.now();
  await using next = nest.start("stop");
  await next.until("opened");
  const survivors = left.filter(isAlive);
  if (survivors.length > 0) throw new Error(`the next host left ${JSON.stringify(survivors)}`);
  if (cage !== "auto") tally.foundMs.push(performance.now() - since);
  await next.until("stopped");
  await next.exited();
  const files = await nest.leftovers();
  const processes = await nest.marked();
  if (files.length + processes.length > 0) {
    throw new Error(`left behind: ${JSON.stringify({ files, processes })}`);
  }
}

/** Whoever it is, its worker or its host must cope. */
function killChild(host: NestHost, { random, tally, cage }: WorkerKill): void {
  const family = host.family();
  if (family.length === 0) return;
  killExactly(pick(random, family));
  counted(tally, "child", cage);
}

interface WorkerKill {
  readonly random: () => number;
  readonly tally: KillTally;
  readonly cage: SceneCage;
}

async function killWorker(
  nest: Nest,
  host: NestHost,
  { random, tally, cage }: WorkerKill,
): Promise<void> {
  const times = host.times("ready");
  const { pids } = await host.until("ready");
  const worker = identify(pick(random, pids as number[]));
  // A killed child may have taken it along; the host then brings it back.
  if (worker === undefined || !isAlive(worker)) return;
  const tree = nest.treeOf(worker.pid);
  killExactly(worker);
  counted(tally, "worker", cage);
  const since = performance.now();
  await nest.ended(tree);
  lived(tally, `worker, ${cage}`, performance.now() - since);
  await host.until("ready", times + 1);
}

async function killInstaller(nest: Nest, random: () => number, tally: KillTally): Promise<void> {
  const child = startCli(["install-all", "--only", "sandbox"], { dataDir: `${nest.folder}/data` });
  await delay(random() * INSTALL_MS);
  const tree = nest.treeOf(child.pid ?? 0);
  counted(tally, "mid-install", "auto");
  child.kill("SIGKILL");
  await child;
  lived(tally, "mid-install", await emptied(nest, tree));
}
