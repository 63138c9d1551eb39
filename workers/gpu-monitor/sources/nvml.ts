import { lostGpu, makeGpu, type MeasuredField } from "../gpu.ts";
import type { Gpu, GpuProcess, Reading } from "../model.ts";
import { NVML, NvmlLibrary, nvmlReason, type NvmlFunction } from "./nvml-library.ts";
import {
  decodeMemoryV1,
  decodeMemoryV2,
  decodeProcessList,
  decodeText,
  decodeThrottle,
  memoryV2Buffer,
  mergeProcesses,
  processListBuffer,
  temperatureV1Buffer,
  type DeviceMemory,
  type ProcessUse,
} from "./nvml-structs.ts";

/** Values that change slowly, and calls that take long, are read once a second. */
const SLOW_PERIOD_MS = 1_000;
/** MIG can be reconfigured and a GPU can be reset under us. */
const ENUMERATE_PERIOD_MS = 10_000;
const TEXT_BYTES = 96;
const UNCORRECTED = 1;
const SINCE_BOOT = 0;

interface Device {
  readonly handle: bigint;
  /** Of the whole GPU, where this is a MIG instance: instances have no sensors. */
  readonly sensors: bigint;
  readonly uuid: string;
  readonly index: number;
  readonly name: string | null;
  readonly parentUuid: string | null;
  /** Was listed once and is not any more. */
  readonly isGone: boolean;
}

type Values = Partial<Pick<Gpu, MeasuredField>>;
/** What was read of one device; `lost` ends the reading of it. */
interface Measured {
  readonly values: Values;
  readonly reasons: Partial<Record<MeasuredField, string>>;
}

class LostError extends Error {}

/**
 * The driver's own library: exact, in bytes, and per process.
 *
 * Its calls block, usually for microseconds and sometimes for seconds: `nvml-thread.ts` is its place.
 */
export class NvmlSource implements Disposable {
  readonly #library: NvmlLibrary;
  readonly #driver: string | null;
  readonly #now: () => number;
  readonly #slow = new Map<string, Measured>();
  /** Devices on which someone drew at the last reading. */
  readonly #drawnOn = new Set<string>();
  #devices: readonly Device[] = [];
  #slowReadMs = -Infinity;
  #enumeratedMs = -Infinity;
  /** Positions that are listed but cannot be opened, with the reason. */
  #unreachable = new Map<number, string>();

  private constructor(library: NvmlLibrary, driver: string | null, now: () => number) {
    this.#library = library;
    this.#driver = driver;
    this.#now = now;
  }

  static async open(
    path: string,
    now = (): number => performance.now(),
  ): Promise<NvmlSource | string> {
    const library = await NvmlLibrary.load(path);
    if (typeof library === "string") return `nvml: ${library}`;
    const code = library.call("nvmlInit_v2");
    if (code !== NVML.success) return `nvml: ${nvmlReason(code)}`;
    const text = Buffer.alloc(TEXT_BYTES);
    const hasDriver = library.call("nvmlSystemGetDriverVersion", text, TEXT_BYTES) === 0;
    const source = new NvmlSource(library, hasDriver ? decodeText(text) : null, now);
    const counted = source.#uint("nvmlDeviceGetCount_v2");
    if (typeof counted === "number" && counted > 0) return source;
    source[Symbol.dispose]();
    return typeof counted === "number"
      ? "nvml: the driver lists no GPU"
      : `nvml: ${counted.reason}`;
  }

  read(): Reading {
    const nowMs = this.#now();
    if (nowMs - this.#enumeratedMs >= ENUMERATE_PERIOD_MS) {
      this.#enumeratedMs = nowMs;
      this.#enumerate();
    }
    const isSlowDue = nowMs - this.#slowReadMs >= SLOW_PERIOD_MS;
    if (isSlowDue) this.#slowReadMs = nowMs;
    const gpus = this.#devices.map((device) => this.#readDevice(device, isSlowDue));
    const notes = [...this.#unreachable].map(
      ([index, why]) => `GPU ${index} cannot be read: ${why}`,
    );
    return { gpus, driver: this.#driver, notes };
  }

  [Symbol.dispose](): void {
    this.#library.call("nvmlShutdown");
  }

  #readDevice(device: Device, isSlowDue: boolean): Gpu {
    const identity = {
      uuid: device.uuid,
      index: device.index,
      vendor: "nvidia",
      name: device.name,
      parent_uuid: device.parentUuid,
    } as const;
    if (device.isGone) return lostGpu(identity, "no longer listed by the driver");
    try {
      const fast = this.#readFast(device, isSlowDue);
      const known = this.#slow.get(device.uuid);
      const slow = isSlowDue || known === undefined ? this.#readSlow(device) : known;
      this.#slow.set(device.uuid, slow);
      return makeGpu(
        { ...identity, ...slow.values, ...fast.values },
        { ...slow.reasons, ...fast.reasons },
      );
    } catch (error) {
      if (!(error instanceof LostError)) throw error;
      // A reset brings the device back under a new handle.
      this.#enumeratedMs = -Infinity;
      return lostGpu(identity, error.message);
    }
  }

  #readFast(device: Device, isSlowDue: boolean): Measured {
    const memory = this.#memory(device.handle);
    const processes = this.#processes(device, isSlowDue);
    const reasons: Partial<Record<MeasuredField, string>> = {};
    const values: Values = {};
    if (typeof processes === "string") reasons.processes = processes;
    else values.processes = processes;
    if (typeof memory === "string") {
      for (const field of MEMORY_FIELDS) reasons[field] = memory;
    } else {
      values.memory_total_bytes = memory.total;
      values.memory_free_bytes = memory.free;
      values.memory_used_bytes = Math.max(0, memory.total - memory.free);
      values.memory_reserved_bytes = memory.reserved;
    }
    return { values, reasons };
  }

  #readSlow({ handle, sensors }: Device): Measured {
    const values: Values = {};
    const reasons: Partial<Record<MeasuredField, string>> = {};
    const note = (field: MeasuredField, value: number | Reason): number | null => {
      if (typeof value === "number") return value;
      reasons[field] = value.reason;
      return null;
    };
    // The driver averages load over up to a second itself.
    const rates = Buffer.alloc(8);
    const load = this.#checked("nvmlDeviceGetUtilizationRates", handle, rates);
    if (load === undefined) values.utilization_percent = rates.readUInt32LE();
    else reasons.utilization_percent = load;
    const milliwatts = note("power_watts", this.#uint("nvmlDeviceGetPowerUsage", sensors));
    values.power_watts = milliwatts === null ? null : milliwatts / 1000;
    const limit = note("power_limit_watts", this.#uint("nvmlDeviceGetEnforcedPowerLimit", sensors));
    values.power_limit_watts = limit === null ? null : limit / 1000;
    values.temperature_celsius = note("temperature_celsius", this.#temperature(sensors));
    const errors = Buffer.alloc(8);
    const ecc = this.#checked(
      "nvmlDeviceGetTotalEccErrors",
      sensors,
      UNCORRECTED,
      SINCE_BOOT,
      errors,
    );
    if (ecc === undefined) values.ecc_uncorrected_errors = Number(errors.readBigUInt64LE());
    else reasons.ecc_uncorrected_errors = ecc;
    const bits = Buffer.alloc(8);
    const throttle = this.#checked(this.#throttleFunction(), sensors, bits);
    if (throttle === undefined) values.throttle_reasons = decodeThrottle(bits);
    else reasons.throttle_reasons = throttle;
    return { values, reasons };
  }

  #throttleFunction(): NvmlFunction {
    const current = "nvmlDeviceGetCurrentClocksEventReasons";
    return this.#library.has(current) ? current : "nvmlDeviceGetCurrentClocksThrottleReasons";
  }

  #temperature(handle: bigint): number | Reason {
    if (this.#library.has("nvmlDeviceGetTemperature")) {
      return this.#uint("nvmlDeviceGetTemperature", handle, 0);
    }
    const buffer = temperatureV1Buffer();
    const reason = this.#checked("nvmlDeviceGetTemperatureV", handle, buffer);
    return reason === undefined ? buffer.readInt32LE(8) : { reason };
  }

  #memory(handle: bigint): DeviceMemory | string {
    const buffer = memoryV2Buffer();
    const reason = this.#checked("nvmlDeviceGetMemoryInfo_v2", handle, buffer);
    if (reason === undefined) return decodeMemoryV2(buffer);
    const older = Buffer.alloc(24);
    const olderReason = this.#checked("nvmlDeviceGetMemoryInfo", handle, older);
    return olderReason === undefined ? decodeMemoryV1(older) : olderReason;
  }

  /** Who draws is asked every time only where someone does: most machines that compute have no display. */
  #processes({ handle, uuid }: Device, isSlowDue: boolean): GpuProcess[] | string {
    const draws = isSlowDue || this.#drawnOn.has(uuid);
    const compute = this.#processList("nvmlDeviceGetComputeRunningProcesses", handle);
    const drawing = draws ? this.#processList("nvmlDeviceGetGraphicsRunningProcesses", handle) : [];
    if (typeof compute === "string") return compute;
    // Accelerators without a display have no such list; that nobody draws there is known.
    const graphics = typeof drawing === "string" ? [] : drawing;
    if (graphics.length > 0) this.#drawnOn.add(uuid);
    else this.#drawnOn.delete(uuid);
    return mergeProcesses(compute, graphics);
  }

  #processList(
    name: "nvmlDeviceGetComputeRunningProcesses" | "nvmlDeviceGetGraphicsRunningProcesses",
    handle: bigint,
  ): ProcessUse[] | string {
    const versions = [`${name}_v3`, `${name}_v2`, name] as const;
    const call = versions.find((version) => this.#library.has(version)) ?? name;
    let capacity = 64;
    for (let attempt = 0; attempt < 4; attempt += 1) {
      const buffer = processListBuffer(capacity);
      const count = Buffer.alloc(4);
      count.writeUInt32LE(capacity);
      const code = this.#call(call, handle, count, buffer);
      const found = count.readUInt32LE();
      if (code === NVML.success) {
        return decodeProcessList(buffer, Math.min(found, capacity), call === name);
      }
      if (code !== NVML.insufficientSize) return nvmlReason(code);
      // More may have come by the next call.
      capacity = found * 2 + 5;
    }
    return "processes come faster than they can be listed";
  }

  /** Finds the devices a job can be given. One that was known and is gone now stays, as lost. */
  #enumerate(): void {
    const found: Device[] = [];
    this.#unreachable = new Map();
    const count = this.#count("nvmlDeviceGetCount_v2");
    for (let index = 0; index < count; index += 1) {
      const handle = this.#handle("nvmlDeviceGetHandleByIndex_v2", index);
      if (typeof handle === "bigint") found.push(...this.#devicesOf(handle, index));
      else this.#unreachable.set(index, handle.reason);
    }
    const uuids = new Set(found.map(({ uuid }) => uuid));
    // A MIG instance that was destroyed is no loss; only whole GPUs fall off the bus.
    const parents = new Set(found.map(({ parentUuid }) => parentUuid));
    const gone = this.#devices
      .filter(({ parentUuid }) => parentUuid === null)
      .filter(({ uuid }) => !uuids.has(uuid) && !parents.has(uuid))
      .map((device) => ({ ...device, isGone: true }));
    this.#devices = [...found, ...gone];
  }

  #devicesOf(handle: bigint, index: number): Device[] {
    const uuid = this.#text("nvmlDeviceGetUUID", handle);
    if (uuid === null) {
      this.#unreachable.set(index, "it has no UUID");
      return [];
    }
    const name = this.#text("nvmlDeviceGetName", handle);
    const whole = { handle, sensors: handle, uuid, index, name, parentUuid: null, isGone: false };
    const mode = Buffer.alloc(4);
    const code = this.#library.call("nvmlDeviceGetMigMode", handle, mode, Buffer.alloc(4));
    if (code !== NVML.success || mode.readUInt32LE() === 0) return [whole];
    const instances: Device[] = [];
    const most = this.#count("nvmlDeviceGetMaxMigDeviceCount", handle);
    for (let slot = 0; slot < most; slot += 1) {
      const mig = this.#handle("nvmlDeviceGetMigDeviceHandleByIndex", handle, slot);
      if (typeof mig !== "bigint") continue;
      const migUuid = this.#text("nvmlDeviceGetUUID", mig);
      if (migUuid === null) continue;
      const migName = this.#text("nvmlDeviceGetName", mig);
      instances.push({ ...whole, handle: mig, uuid: migUuid, name: migName, parentUuid: uuid });
    }
    return instances;
  }

  #handle(name: NvmlFunction, ...args: readonly unknown[]): bigint | Reason {
    const buffer = Buffer.alloc(8);
    const code = this.#library.call(name, ...args, buffer);
    return code === NVML.success ? buffer.readBigUInt64LE() : { reason: nvmlReason(code) };
  }

  #count(name: NvmlFunction, ...args: readonly unknown[]): number {
    const buffer = Buffer.alloc(4);
    const code = this.#library.call(name, ...args, buffer);
    return code === NVML.success ? buffer.readUInt32LE() : 0;
  }

  #uint(name: NvmlFunction, ...args: readonly unknown[]): number | Reason {
    const buffer = Buffer.alloc(4);
    const reason = this.#checked(name, ...args, buffer);
    return reason === undefined ? buffer.readUInt32LE() : { reason };
  }

  #text(name: NvmlFunction, handle: bigint): string | null {
    const buffer = Buffer.alloc(TEXT_BYTES);
    const code = this.#library.call(name, handle, buffer, TEXT_BYTES);
    return code === NVML.success ? decodeText(buffer) : null;
  }

  /** The reason why the call failed, or undefined. @throws {LostError} */
  #checked(name: NvmlFunction, ...args: readonly unknown[]): string | undefined {
    const code = this.#call(name, ...args);
    return code === NVML.success ? undefined : nvmlReason(code);
  }

  #call(name: NvmlFunction, ...args: readonly unknown[]): number {
    const code = this.#library.call(name, ...args);
    if (code === NVML.gpuIsLost) throw new LostError(nvmlReason(code));
    return code;
  }
}

interface Reason {
  readonly reason: string;
}

const MEMORY_FIELDS = [
  "memory_total_bytes",
  "memory_used_bytes",
  "memory_free_bytes",
  "memory_reserved_bytes",
] as const;
