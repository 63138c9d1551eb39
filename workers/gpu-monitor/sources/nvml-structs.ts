import type { GpuProcess } from "../model.ts";

/** `VALUE_NOT_AVAILABLE`: the driver does not know, as under WDDM and in MIG mode. */
const UNKNOWN_BYTES = 2n ** 64n - 1n;
/** No struct of any driver is larger; smaller ones leave the end of the buffer untouched. */
const LARGEST_PROCESS_INFO = 32;
const CANARY = 0xa5;

/** `nvmlMemory_v2_t`: version, padding, then total, reserved, free, used. */
export function memoryV2Buffer(): Buffer {
  const size = 40;
  const buffer = Buffer.alloc(size);
  // NVML_STRUCT_VERSION: the struct's size and its version number in one word.
  buffer.writeUInt32LE(size | (2 << 24));
  return buffer;
}

export interface DeviceMemory {
  readonly total: number;
  readonly free: number;
  readonly reserved: number | null;
}

export function decodeMemoryV2(buffer: Buffer): DeviceMemory {
  return {
    total: readSize(buffer, 8) ?? 0,
    reserved: readSize(buffer, 16),
    free: readSize(buffer, 24) ?? 0,
  };
}

/** `nvmlMemory_t`: total, free, used; what is used includes the driver's reserve. */
export function decodeMemoryV1(buffer: Buffer): DeviceMemory {
  return { total: readSize(buffer, 0) ?? 0, free: readSize(buffer, 8) ?? 0, reserved: null };
}

/** `nvmlTemperature_v1_t`: version, sensor, degrees. Sensor 0 is the GPU. */
export function temperatureV1Buffer(): Buffer {
  const size = 12;
  const buffer = Buffer.alloc(size);
  buffer.writeUInt32LE(size | (1 << 24));
  return buffer;
}

export function processListBuffer(capacity: number): Buffer {
  return Buffer.alloc(capacity * LARGEST_PROCESS_INFO, CANARY);
}

export interface ProcessUse {
  readonly pid: number;
  readonly bytes: number | null;
}

/**
 * `count` entries of a process list.
 *
 * The third version of the call fills structs of 24 bytes in some drivers and of 32 in others, and no
 * version number tells which. How far the driver wrote does: beyond `count * 24` only the larger
 * struct reaches. The first version of the call has structs of 16 bytes.
 */
export function decodeProcessList(
  buffer: Buffer,
  count: number,
  isFirstVersion: boolean,
): ProcessUse[] {
  const stride = isFirstVersion ? 16 : laterStride(buffer, count);
  return Array.from({ length: count }, (_, index) => ({
    pid: buffer.readUInt32LE(index * stride),
    bytes: readSize(buffer, index * stride + 8),
  }));
}

function laterStride(buffer: Buffer, count: number): number {
  const beyond = buffer.subarray(count * 24, count * LARGEST_PROCESS_INFO);
  return beyond.every((byte) => byte === CANARY) ? 24 : LARGEST_PROCESS_INFO;
}

function readSize(buffer: Buffer, offset: number): number | null {
  const value = buffer.readBigUInt64LE(offset);
  return value === UNKNOWN_BYTES ? null : Number(value);
}

/** A process that computes and draws is in both lists, with the same memory in each. */
export function mergeProcesses(
  compute: readonly ProcessUse[],
  graphics: readonly ProcessUse[],
): GpuProcess[] {
  const merged = new Map<number, GpuProcess>();
  const lists = [
    { kind: "compute", uses: compute },
    { kind: "graphics", uses: graphics },
  ] as const;
  for (const { kind, uses } of lists) {
    for (const { pid, bytes } of uses) {
      const known = merged.get(pid);
      merged.set(pid, {
        pid,
        memory_bytes: larger(known?.memory_bytes ?? null, bytes),
        kind: known === undefined || known.kind === kind ? kind : "both",
        name: null,
        own: null,
      });
    }
  }
  return [...merged.values()];
}

function larger(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.max(a, b);
}

/** Text up to its end, from a buffer that C wrote. */
export function decodeText(buffer: Buffer): string {
  const end = buffer.indexOf(0);
  return buffer.toString("utf8", 0, end < 0 ? buffer.length : end);
}

const THROTTLE_BITS: readonly (readonly [bit: bigint, name: string])[] = [
  [0x1n, "gpu_idle"],
  [0x2n, "applications_clocks_setting"],
  [0x4n, "sw_power_cap"],
  [0x8n, "hw_slowdown"],
  [0x10n, "sync_boost"],
  [0x20n, "sw_thermal_slowdown"],
  [0x40n, "hw_thermal_slowdown"],
  [0x80n, "hw_power_brake_slowdown"],
  [0x100n, "display_clock_setting"],
];

export function decodeThrottle(buffer: Buffer): string[] {
  const bits = buffer.readBigUInt64LE();
  return THROTTLE_BITS.filter(([bit]) => (bits & bit) !== 0n).map(([, name]) => name);
}
