import {
  canonicalKey,
  cloneState,
  createScheduler,
  step,
  type AdmitDecision,
  type Decision,
  type InstanceState,
  type SchedulerEvent,
  type SchedulerRules,
  type SchedulerState,
} from "../../../../src/scheduler/index.ts";
import { keyOf, profileOf } from "../support.ts";

/** A machine with small numbers, and what may happen to it. Amounts are in one unit of memory. */
export interface Scenario {
  readonly name: string;
  readonly gpus: Readonly<Record<string, number>>;
  readonly marginMb: number;
  readonly maxLanes: number;
  readonly maxPasses: number;
  /** Residents at the start (`gpu` given) and instances without a process. */
  readonly instances: Readonly<Record<string, ScenarioInstance>>;
  /** Submitted in this order, each at any time. */
  readonly jobs: readonly ScenarioJob[];
  /** Memory that a foreign program takes and gives back, by GPU. */
  readonly foreign: Readonly<Record<string, number>>;
  /** How often each adversary may act in one history. */
  readonly budget: Budget;
}

export interface ScenarioInstance {
  readonly gpu?: string;
  /** Held as soon as it is loaded. */
  readonly base: number;
  /** Held after a release at level `sleep`. */
  readonly asleep: number;
  readonly maxConcurrent?: number;
}

export interface ScenarioJob {
  readonly id: string;
  readonly instance: string;
  readonly peak: number;
  readonly priority?: number;
  /** Expected duration; the search itself is timeless. */
  readonly durationMs?: number;
  /** Its key has no profile until its first run has ended. */
  readonly unmeasured?: boolean;
  /** Whether it is one that may run out of memory. */
  readonly mayRunOut?: boolean;
}

interface Budget {
  readonly outOfMemory: number;
  readonly cancel: number;
  readonly lie: number;
  readonly external: number;
}

interface WorldInstance {
  state: InstanceState;
  gpu: string | null;
  held: number;
  ending: boolean;
  /** Level of a release that was asked for and not answered. */
  asked: "sleep" | "unload" | null;
  readonly running: Set<string>;
  readonly ramped: Set<string>;
}

/** The truth beside what the scheduler believes. */
export interface World {
  readonly scenario: Scenario;
  readonly scheduler: SchedulerState;
  submitted: number;
  readonly instances: Map<string, WorldInstance>;
  readonly foreign: Map<string, number>;
  /** What foreign programs held when the last telemetry event was sent. */
  readonly toldForeign: Map<string, number>;
  readonly budget: { -readonly [Key in keyof Budget]: number };
  readonly done: Set<string>;
  readonly measured: Set<string>;
  /** How often a pending job was passed at its GPU while it was first in line there. */
  readonly passed: Map<string, number>;
}

/** Something that went wrong, in words. */
export class Violation extends Error {
  override readonly name = "Violation";
}

export interface Move {
  readonly label: string;
  /** Nobody may rely on it: it comes from a user, a fault, or another program. */
  readonly mayNotCome?: boolean;
  apply(world: World): void;
}

const LATER = 5000;

export function createWorld(scenario: Scenario, rules: SchedulerRules): World {
  const { maxLanes, maxPasses, marginMb } = scenario;
  const scheduler = createScheduler(
    { maxLanes, maxPasses, vramMarginMb: marginMb, ramMarginMb: 0, evictionTimeoutMs: LATER },
    rules,
  );
  const world: World = {
    scenario,
    scheduler,
    submitted: 0,
    instances: new Map(),
    foreign: new Map(Object.keys(scenario.gpus).map((uuid) => [uuid, 0])),
    toldForeign: new Map(),
    budget: { ...scenario.budget },
    done: new Set(),
    measured: new Set(),
    passed: new Map(),
  };
  for (const [id, { gpu, base }] of Object.entries(scenario.instances)) {
    world.instances.set(id, {
      state: gpu === undefined ? "absent" : "ready",
      gpu: gpu ?? null,
      held: gpu === undefined ? 0 : base,
      ending: false,
      asked: null,
      running: new Set(),
      ramped: new Set(),
    });
    sendInstance(world, id);
  }
  // A measured key of the capability makes it one that uses a GPU.
  for (const job of scenario.jobs) if (job.unmeasured !== true) measure(world, job);
  sendTelemetry(world);
  return world;
}

export function cloneWorld(world: World): World {
  return {
    ...world,
    scheduler: cloneState(world.scheduler),
    instances: new Map(
      [...world.instances].map(([id, each]) => [
        id,
        { ...each, running: new Set(each.running), ramped: new Set(each.ramped) },
      ]),
    ),
    foreign: new Map(world.foreign),
    toldForeign: new Map(world.toldForeign),
    budget: { ...world.budget },
    done: new Set(world.done),
    measured: new Set(world.measured),
    passed: new Map(world.passed),
  };
}

export function worldKey(world: World): string {
  const { budget } = world;
  let key = `${world.submitted},${budget.outOfMemory},${budget.cancel},${budget.lie},`;
  key += `${budget.external};`;
  for (const each of world.instances.values()) {
    key += `${each.state},${each.gpu},${each.held},${each.ending},${each.asked},`;
    key += `${sorted(each.running)},${sorted(each.ramped)};`;
  }
  for (const [uuid, amount] of world.foreign) {
    key += `${amount},${world.toldForeign.get(uuid)},`;
  }
  for (const { id } of world.scenario.jobs) {
    key += `${world.done.has(id)},${world.passed.get(id)};`;
  }
  return key + canonicalKey(world.scheduler);
}

function sorted(texts: Iterable<string>): string {
  return [...texts].sort().join(",");
}

/** Whether jobs wait and nothing that must come will come. */
export function isStuck(world: World, moves: readonly Move[]): boolean {
  return world.done.size < world.submitted && moves.every(({ mayNotCome }) => mayNotCome === true);
}

/** Everything that can happen next. */
export function movesOf(world: World): Move[] {
  const { scenario, budget, scheduler } = world;
  const moves: Move[] = [];
  const job = scenario.jobs[world.submitted];
  if (job !== undefined) {
    moves.push({
      label: `submit ${job.id}`,
      mayNotCome: true,
      apply: (next) => {
        const seq = next.submitted++;
        submit(next, job, seq);
      },
    });
  }
  for (const [id, instance] of world.instances) moves.push(...instanceMoves(world, id, instance));
  if (isStale(world)) moves.push({ label: "telemetry", apply: sendTelemetry });
  if (budget.cancel > 0) {
    for (const jobId of scheduler.pending.keys()) {
      moves.push({
        label: `cancel ${jobId}`,
        mayNotCome: true,
        apply: (next) => {
          next.budget.cancel--;
          next.done.add(jobId);
          send(next, { type: "job_removed", now: 0, jobId });
        },
      });
    }
  }
  for (const [uuid, amount] of Object.entries(scenario.foreign)) {
    const now = world.foreign.get(uuid) ?? 0;
    if (now === 0 && (budget.external === 0 || trueFree(world, uuid) < amount)) continue;
    moves.push({
      label: now === 0 ? `foreign program takes ${uuid}` : `foreign program leaves ${uuid}`,
      mayNotCome: now === 0,
      apply: (next) => {
        if (now === 0) next.budget.external--;
        next.foreign.set(uuid, now === 0 ? amount : 0);
      },
    });
  }
  return moves;
}

function instanceMoves(world: World, id: string, instance: WorldInstance): Move[] {
  const moves: Move[] = [];
  if (instance.ending) {
    return [{ label: `worker of ${id} ends`, apply: (next) => end(next, id) }];
  }
  if (instance.asked !== null) {
    moves.push({ label: `${id} releases`, apply: (next) => release(next, id) });
    if (world.budget.lie > 0) {
      moves.push(
        { label: `${id} lies`, mayNotCome: true, apply: (next) => reply(next, id, true) },
        {
          label: `${id} does not answer`,
          mayNotCome: true,
          apply: (next) => reply(next, id, false),
        },
      );
    }
    return moves;
  }
  const isJudged = world.scheduler.instances.get(id)?.eviction?.repliedAt === 0;
  if (isJudged && !isStale(world)) {
    moves.push({
      label: "5 s pass",
      apply: (next) => send(next, { type: "tick", now: LATER }),
    });
  }
  if (instance.state === "loading") {
    return [...moves, { label: `${id} is loaded`, apply: (next) => load(next, id) }];
  }
  for (const jobId of instance.running) moves.push(...jobMoves(world, id, jobId));
  return moves;
}

function jobMoves(world: World, id: string, jobId: string): Move[] {
  const { ramped, held } = instanceOf(world, id);
  const grown = new Set([...ramped, jobId]);
  // A peak that changes nothing is no move of its own.
  if (!ramped.has(jobId) && peakOf(world, id, grown) > held) {
    return [{ label: `${jobId} reaches its peak`, apply: (next) => ramp(next, id, jobId) }];
  }
  const moves: Move[] = [{ label: `${jobId} ends`, apply: (next) => finish(next, id, jobId) }];
  if (world.budget.outOfMemory > 0 && jobOf(world, jobId).mayRunOut === true) {
    moves.push({
      label: `${jobId} runs out`,
      mayNotCome: true,
      apply: (next) => runOut(next, id, jobId),
    });
  }
  return moves;
}

function submit(world: World, job: ScenarioJob, seq: number): void {
  send(world, {
    type: "job_submitted",
    now: 0,
    job: {
      jobId: job.id,
      instanceId: job.instance,
      capability: "cap",
      profileKey: keyOf(job.id),
      priority: job.priority ?? 0,
      seq,
    },
  });
}

function load(world: World, id: string): void {
  const instance = instanceOf(world, id);
  instance.state = "ready";
  instance.held = scenarioOf(world, id).base;
  sendInstance(world, id);
}

function ramp(world: World, id: string, jobId: string): void {
  const instance = instanceOf(world, id);
  instance.ramped.add(jobId);
  instance.held = Math.max(instance.held, peakOf(world, id, instance.ramped));
}

function finish(world: World, id: string, jobId: string): void {
  const instance = instanceOf(world, id);
  leave(instance, jobId);
  world.done.add(jobId);
  const job = jobOf(world, jobId);
  if (job.unmeasured === true) measure(world, job);
  send(world, { type: "job_finished", now: 0, jobId, outcome: "completed" });
}

/** The job runs out of memory and is submitted again, as a retry would be. */
function runOut(world: World, id: string, jobId: string): void {
  world.budget.outOfMemory--;
  leave(instanceOf(world, id), jobId);
  send(world, { type: "job_finished", now: 0, jobId, outcome: "out_of_memory" });
  const seq = world.scenario.jobs.findIndex((job) => job.id === jobId);
  submit(world, jobOf(world, jobId), seq);
}

function release(world: World, id: string): void {
  const instance = instanceOf(world, id);
  const level = instance.asked;
  if (level === "unload") {
    end(world, id);
    return;
  }
  instance.held = Math.min(instance.held, scenarioOf(world, id).asleep);
  reply(world, id, true);
}

function reply(world: World, id: string, replied: boolean): void {
  const instance = instanceOf(world, id);
  const isHonest = replied && instance.held <= scenarioOf(world, id).asleep;
  if (!isHonest) world.budget.lie--;
  instance.asked = null;
  send(world, { type: "eviction_finished", now: 0, instanceId: id, replied });
}

function end(world: World, id: string): void {
  const instance = instanceOf(world, id);
  Object.assign(instance, { state: "absent", gpu: null, held: 0, ending: false, asked: null });
  sendInstance(world, id);
}

function leave(instance: WorldInstance, jobId: string): void {
  instance.running.delete(jobId);
  instance.ramped.delete(jobId);
}

function measure(world: World, job: ScenarioJob): void {
  world.measured.add(job.id);
  const { peak, durationMs } = job;
  const profile = profileOf(job.id, { vramMb: peak, ...(durationMs && { durationMs }) });
  // Without a duration nothing may be counted on, so the sketch is left empty.
  const unknown = { ...profile.durationMs, count: 0, p95: { ...profile.durationMs.p95, count: 0 } };
  send(world, {
    type: "profile_changed",
    now: 0,
    key: keyOf(job.id),
    profile: durationMs === undefined ? { ...profile, durationMs: unknown } : profile,
  });
}

function sendInstance(world: World, id: string): void {
  const instance = instanceOf(world, id);
  send(world, {
    type: "instance_changed",
    now: 0,
    instanceId: id,
    capability: "cap",
    state: instance.state,
    gpuUuid: instance.gpu,
    maxConcurrent: scenarioOf(world, id).maxConcurrent ?? 1,
    observedVramMb: instance.held,
    observedRamMb: 0,
  });
}

function sendTelemetry(world: World): void {
  for (const [uuid, amount] of world.foreign) world.toldForeign.set(uuid, amount);
  send(world, {
    type: "telemetry",
    now: 0,
    gpus: Object.entries(world.scenario.gpus).map(([uuid, totalMb]) => ({
      uuid,
      totalMb,
      freeMb: trueFree(world, uuid),
    })),
    ramFreeMb: null,
    diskFreeMb: null,
    instances: [...world.instances]
      .filter(([, { state }]) => state !== "absent")
      .map(([instanceId, { held }]) => ({ instanceId, vramMb: held, ramMb: 0 })),
  });
}

/** Whether a telemetry event would tell the scheduler anything new. */
function isStale(world: World): boolean {
  const { gpus, instances } = world.scheduler;
  if (gpus.values().some(({ uuid, freeMb }) => freeMb !== trueFree(world, uuid))) return true;
  return world.instances.entries().some(([id, { held, state }]) => {
    const vram = instances.get(id)?.vram;
    const isSeen = vram?.sampledMb === held && vram.measuredMb === held && vram.floorMb === 0;
    return state !== "absent" && !isSeen;
  });
}

function trueFree(world: World, uuid: string): number {
  let free = (world.scenario.gpus[uuid] ?? 0) - (world.foreign.get(uuid) ?? 0);
  for (const { gpu, held } of world.instances.values()) if (gpu === uuid) free -= held;
  return free;
}

function send(world: World, event: SchedulerEvent): void {
  const first = firstInLine(world);
  for (const decision of step(world.scheduler, event)) carryOut(world, decision, first);
}

/**
 * What must hold after every move.
 *
 * @throws {Violation} when it does not.
 */
export function check(world: World): void {
  checkNothingLost(world);
}

function carryOut(world: World, decision: Decision, first: Map<string, string>): void {
  switch (decision.type) {
    case "admit":
      admit(world, decision, first);
      break;
    case "evict":
      askToRelease(world, decision.instanceId, decision.level);
      break;
    case "evict_refuted":
    case "respawn":
      startToEnd(world, decision.instanceId);
      break;
    case "reject":
      throw new Violation(`${decision.jobId} was rejected, and it fits`);
    case "block":
    case "wake":
      break;
  }
}

function admit(world: World, decision: AdmitDecision, first: Map<string, string>): void {
  const { jobId, instanceId, gpuUuid, exclusive } = decision;
  const instance = instanceOf(world, instanceId);
  instance.running.add(jobId);
  if (instance.state === "absent") {
    instance.state = "loading";
    instance.gpu = gpuUuid;
  }
  checkAdmission(world, jobId, instanceId, exclusive);
  checkMemory(world, jobId, instanceId);
  countPass(world, jobId, gpuUuid, first);
}

function askToRelease(world: World, id: string, level: "sleep" | "unload"): void {
  const instance = instanceOf(world, id);
  if (instance.running.size > 0 || instance.asked !== null || instance.ending) {
    throw new Violation(`${id} was asked to release while in use`);
  }
  instance.asked = level;
}

function startToEnd(world: World, id: string): void {
  const instance = instanceOf(world, id);
  if (instance.running.size > 0) throw new Violation(`${id} was ended while it ran a job`);
  instance.ending = true;
  instance.asked = null;
}

function checkAdmission(world: World, jobId: string, id: string, exclusive: boolean): void {
  const instance = instanceOf(world, id);
  const { maxConcurrent = 1 } = scenarioOf(world, id);
  if (instance.running.size > maxConcurrent) throw new Violation(`${id} runs too many jobs`);
  if (instance.ending || instance.asked !== null) {
    throw new Violation(`${jobId} was sent to ${id}, which is giving its memory back`);
  }
  const running = [...world.instances.values()].reduce((sum, each) => sum + each.running.size, 0);
  if (running > world.scenario.maxLanes) throw new Violation("too many lanes are in use");
  for (const otherJob of runningBeside(world, id)) {
    const isMeasuring = world.scheduler.running.get(otherJob)?.exclusive === true;
    if (exclusive || isMeasuring) throw new Violation(`${jobId} and ${otherJob} must not share`);
  }
}

function runningBeside(world: World, id: string): string[] {
  const { gpu } = instanceOf(world, id);
  return [...world.instances]
    .filter(([otherId, other]) => otherId !== id && other.gpu === gpu)
    .flatMap(([, { running }]) => [...running]);
}

/**
 * What ours on this GPU can come to use, beside what was told of foreign programs, must fit when a
 * job is added. A foreign program that comes later, or was not told of yet, is nobody's fault.
 */
function checkMemory(world: World, jobId: string, id: string): void {
  const { gpu: uuid, running } = instanceOf(world, id);
  if (uuid === null || !world.measured.has(jobId)) return;
  const others = new Set([...running].filter((each) => each !== jobId));
  if (peakOf(world, id, running) <= Math.max(instanceOf(world, id).held, peakOf(world, id, others)))
    return;
  let worst = world.toldForeign.get(uuid) ?? 0;
  for (const [eachId, each] of world.instances) {
    if (each.gpu === uuid) worst += Math.max(each.held, peakOf(world, eachId, each.running));
  }
  const total = world.scenario.gpus[uuid] ?? 0;
  if (worst > total) throw new Violation(`${uuid} is over-committed: ${worst} of ${total}`);
}

function checkNothingLost(world: World): void {
  for (const { id } of world.scenario.jobs.slice(0, world.submitted)) {
    const places = [world.scheduler.pending.has(id), world.scheduler.running.has(id)];
    const copies = places.filter(Boolean).length + (world.done.has(id) ? 1 : 0);
    if (copies !== 1) throw new Violation(`${id} is in ${copies} places`);
  }
}

function peakOf(world: World, id: string, jobs: ReadonlySet<string>): number {
  const { base } = scenarioOf(world, id);
  let sum = 0;
  for (const jobId of jobs) sum += Math.max(0, jobOf(world, jobId).peak - base);
  return jobs.size === 0 ? 0 : base + sum;
}

/**
 * By GPU: the pending job that is first in order, whose instance is loaded there and could take it,
 * and that only our own jobs keep waiting. Such a job may be passed `maxPasses` times.
 */
function firstInLine(world: World): Map<string, string> {
  const first = new Map<string, string>();
  for (const job of pendingInOrder(world)) {
    const { gpu } = instanceOf(world, job.instance);
    // A job without a place may hold any GPU; whoever comes after it is counted behind it.
    if (gpu === null) break;
    if (first.has(gpu) || !couldTake(world, job.instance)) continue;
    const { gpus, marginMb } = world.scenario;
    const usable = (gpus[gpu] ?? 0) - marginMb - (world.toldForeign.get(gpu) ?? 0);
    if (job.peak <= usable) first.set(gpu, job.id);
  }
  return first;
}

/** Whether an instance could run one more job, if there were memory for it. */
function couldTake(world: World, id: string): boolean {
  const { state, ending, running } = instanceOf(world, id);
  const known = world.scheduler.instances.get(id);
  const isReleasing = known?.eviction !== null;
  // A process that ran out of memory takes no more jobs: they wait for its end, not for memory.
  const isSpent = known?.tainted === true;
  const { maxConcurrent = 1 } = scenarioOf(world, id);
  const isTaking = state === "ready" && !ending && !isReleasing && !isSpent;
  return isTaking && running.size < maxConcurrent;
}

function countPass(
  world: World,
  jobId: string,
  gpu: string | null,
  first: Map<string, string>,
): void {
  const passedId = first.get(gpu ?? "");
  if (passedId === undefined || passedId === jobId || !world.scheduler.pending.has(passedId))
    return;
  // In the same step it may have been sent to another GPU.
  if (!couldTake(world, jobOf(world, passedId).instance)) return;
  const ranks = [passedId, jobId].map((id) => rankOf(world, jobOf(world, id)));
  if ((ranks[0] ?? 0) > (ranks[1] ?? 0)) return;
  const times = (world.passed.get(passedId) ?? 0) + 1;
  world.passed.set(passedId, times);
  if (times > world.scenario.maxPasses)
    throw new Violation(`${passedId} was passed ${times} times`);
}

function pendingInOrder(world: World): ScenarioJob[] {
  return world.scenario.jobs
    .filter(({ id }) => world.scheduler.pending.has(id))
    .sort((a, b) => rankOf(world, a) - rankOf(world, b));
}

/** Place in the order: priority first, then the submit order. */
function rankOf(world: World, job: ScenarioJob): number {
  return world.scenario.jobs.indexOf(job) - 1000 * (job.priority ?? 0);
}

function jobOf(world: World, id: string): ScenarioJob {
  const job = world.scenario.jobs.find((each) => each.id === id);
  if (job === undefined) throw new Violation(`${id} is not a job of this scenario`);
  return job;
}

function instanceOf(world: World, id: string): WorldInstance {
  const instance = world.instances.get(id);
  if (instance === undefined) throw new Violation(`${id} is not an instance of this scenario`);
  return instance;
}

function scenarioOf(world: World, id: string): ScenarioInstance {
  return world.scenario.instances[id] ?? { base: 0, asleep: 0 };
}
