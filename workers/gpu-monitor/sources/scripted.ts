import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { CjmError, z } from "cjm-substrate/worker";
import { lostGpu, makeGpu } from "../gpu.ts";
import type { Gpu, GpuProcess, Reading } from "../model.ts";
import { PublishedFolder, type Holding, type PublishedState } from "./published.ts";
import { scriptSchema, type Script, type TimelineEntry } from "./script-schema.ts";
import type { DeviceSource } from "./source.ts";

type Device = Script["gpus"][number];
type DeviceChange = Omit<TimelineEntry, "at_ms">;
type DeviceState = Omit<DeviceChange, "gpu">;
interface Fading {
  readonly bytes: number;
  readonly untilMs: number;
}

const NOTHING: PublishedState = { holdings: [], changes: [], notes: [] };
const UNSET = "not set by the script";

/**
 * A device that does what a JSON timeline says, and that other processes can hold memory on.
 *
 * It answers through the same interface as a driver, so everything above it is the real thing.
 */
export class ScriptedSource implements DeviceSource {
  readonly name = "scripted";
  readonly #script: Script;
  readonly #folder: PublishedFolder | undefined;
  readonly #now: () => number;
  readonly #startedMs: number;
  /** Bytes by device and holder at the last reading, and what is still draining away. */
  #held = new Map<string, number>();
  #fading = new Map<string, Fading[]>();

  /** `now` is a monotonic clock in milliseconds; the timeline starts at construction. */
  constructor(script: Script, baseFolder: string, now: () => number) {
    this.#script = script;
    this.#now = now;
    this.#startedMs = now();
    if (script.allocations !== undefined) {
      this.#folder = new PublishedFolder(resolve(baseFolder, script.allocations));
    }
  }

  /** @throws {CjmError} `CONFIG_INVALID` naming the file and every bad member at once. */
  static open(path: string, now: () => number = () => performance.now()): ScriptedSource {
    let content: unknown;
    try {
      content = JSON.parse(readFileSync(path, "utf8"));
    } catch (cause) {
      throw new CjmError("CONFIG_INVALID", `The script ${path} cannot be read`, { cause });
    }
    const parsed = scriptSchema.safeParse(content);
    if (!parsed.success) {
      throw new CjmError("CONFIG_INVALID", `${path}:\n${z.prettifyError(parsed.error)}`, {
        fieldsInvalid: parsed.error.issues.map((issue) => issue.path.join(".")),
      });
    }
    return new ScriptedSource(parsed.data, dirname(resolve(path)), now);
  }

  read(): Promise<Reading> {
    const nowMs = this.#now();
    const published = this.#folder?.read() ?? NOTHING;
    this.#fade(published.holdings, nowMs);
    const changes = [...this.#timelineUntil(nowMs - this.#startedMs), ...published.changes];
    const gpus = this.#script.gpus.map((device, index) => {
      const state = changes
        .filter((change) => isFor(change.gpu, device, index))
        .reduce<DeviceState>((before, change) => Object.assign(before, change), {});
      return this.#gpu(device, index, { state, holdings: published.holdings });
    });
    return Promise.resolve({ gpus, driver: "scripted", notes: published.notes });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  *#timelineUntil(elapsedMs: number): Generator<DeviceChange> {
    const { repeat_ms: repeatMs, timeline } = this.#script;
    const nowMs = repeatMs === undefined ? elapsedMs : elapsedMs % repeatMs;
    for (const { at_ms: atMs, ...change } of timeline) if (atMs <= nowMs) yield change;
  }

  #gpu(
    device: Device,
    index: number,
    { state, holdings }: { state: DeviceState; holdings: readonly Holding[] },
  ): Gpu {
    const identity = { uuid: device.uuid, index, vendor: "simulated", name: device.name } as const;
    if (state.lost === true) return lostGpu(identity, "the script says the device is lost");
    const published = holdings.flatMap((holding) => holdingOn(holding, device, index));
    const scripted = (state.processes ?? []).map(({ pid, bytes, name, kind }): GpuProcess => ({
      pid,
      memory_bytes: bytes,
      kind,
      name: name ?? null,
      own: null,
    }));
    const fading = this.#fading.get(device.uuid) ?? [];
    const used =
      device.memory_reserved_bytes +
      (state.foreign_bytes ?? 0) +
      sum([...scripted, ...published].map((held) => held.memory_bytes ?? 0)) +
      sum(fading.map(({ bytes }) => bytes));
    const usedBytes = Math.min(used, device.memory_total_bytes);
    return makeGpu(
      {
        ...identity,
        memory_total_bytes: device.memory_total_bytes,
        memory_used_bytes: usedBytes,
        memory_free_bytes: device.memory_total_bytes - usedBytes,
        memory_reserved_bytes: device.memory_reserved_bytes,
        utilization_percent: state.utilization_percent ?? null,
        temperature_celsius: state.temperature_celsius ?? null,
        power_watts: state.power_watts ?? null,
        throttle_reasons: state.throttle_reasons ?? null,
        processes: state.processes === null ? null : [...scripted, ...published],
      },
      {},
      UNSET,
    );
  }

  /** Memory of a holder that shrank or went away stays in use for the script's recovery lag. */
  #fade(holdings: readonly Holding[], nowMs: number): void {
    const held = new Map<string, number>();
    for (const [index, device] of this.#script.gpus.entries()) {
      const draining = (this.#fading.get(device.uuid) ?? []).filter((f) => f.untilMs > nowMs);
      for (const holding of holdings) {
        for (const { pid, memory_bytes: bytes } of holdingOn(holding, device, index)) {
          const key = `${device.uuid} ${pid}`;
          held.set(key, (held.get(key) ?? 0) + (bytes ?? 0));
        }
      }
      for (const [key, before] of this.#held) {
        const lost = key.startsWith(`${device.uuid} `) ? before - (held.get(key) ?? 0) : 0;
        if (lost > 0 && this.#script.recovery_lag_ms > 0) {
          draining.push({ bytes: lost, untilMs: nowMs + this.#script.recovery_lag_ms });
        }
      }
      this.#fading.set(device.uuid, draining);
    }
    this.#held = held;
  }
}

function holdingOn(holding: Holding, device: Device, index: number): GpuProcess[] {
  const here = holding.allocations.filter(({ gpu }) => isFor(gpu, device, index));
  if (here.length === 0) return [];
  return [
    {
      pid: holding.hostPid,
      memory_bytes: sum(here.map(({ bytes }) => bytes)),
      kind: holding.kind,
      name: holding.name ?? null,
      own: null,
    },
  ];
}

function isFor(gpu: string | number, device: Device, index: number): boolean {
  return gpu === device.uuid || gpu === index;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
