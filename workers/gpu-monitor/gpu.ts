import type { Gpu } from "./model.ts";

const UNREAD = {
  name: null,
  parent_uuid: null,
  memory_total_bytes: null,
  memory_used_bytes: null,
  memory_free_bytes: null,
  memory_reserved_bytes: null,
  utilization_percent: null,
  temperature_celsius: null,
  power_watts: null,
  power_limit_watts: null,
  throttle_reasons: null,
  ecc_uncorrected_errors: null,
  lost: false,
  processes: null,
} as const;

/** Fields of {@link Gpu} that hold a measurement. */
export type MeasuredField = Exclude<keyof typeof UNREAD, "parent_uuid" | "lost">;
const MEASURED = Object.keys(UNREAD).filter((key) => key !== "parent_uuid" && key !== "lost");

/** A device from what could be read; every measurement left null gets a reason. */
export function makeGpu(
  known: Partial<Gpu> & Pick<Gpu, "uuid" | "index" | "vendor">,
  reasons: Partial<Record<MeasuredField, string>> = {},
  otherwise = "not reported by this source",
): Gpu {
  const gpu: Gpu = { ...UNREAD, ...known, unavailable: {} };
  const fields = new Map<string, unknown>(Object.entries(gpu));
  const why = new Map<string, string>(Object.entries(reasons));
  for (const field of MEASURED) {
    if (fields.get(field) === null) gpu.unavailable[field] = why.get(field) ?? otherwise;
  }
  return gpu;
}

/** A device that fell off the bus: identity stays, every measurement is null for `reason`. */
export function lostGpu(
  { uuid, index, vendor, name, parent_uuid }: Pick<Gpu, "uuid" | "index" | "vendor"> & Partial<Gpu>,
  reason: string,
): Gpu {
  const identity = { uuid, index, vendor, name: name ?? null, parent_uuid: parent_uuid ?? null };
  return makeGpu({ ...identity, lost: true }, {}, reason);
}
