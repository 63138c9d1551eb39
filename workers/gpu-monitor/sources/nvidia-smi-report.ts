import { lostGpu, makeGpu, type MeasuredField } from "../gpu.ts";
import type { Gpu, GpuProcess } from "../model.ts";
import { find, parseXml, type XmlElement } from "./xml.ts";

const MIB = 1024 * 1024;
/** No device has more; WSL2 has printed 17592186044415 MiB for "not available". */
const MOST_BYTES = 2 ** 46;

/** The devices of one `nvidia-smi -q -x` document. */
export interface SmiReport {
  readonly gpus: readonly Gpu[];
  readonly driver: string | null;
}

/** A string says why the document is none. Never throws, whatever it is given. */
export function parseSmiReport(document: string): SmiReport | string {
  const root = parseXml(document);
  if (root?.name !== "nvidia_smi_log") return firstLine(document);
  const driver = find(root, "driver_version")?.text;
  const gpus = root.children
    .filter((child) => child.name === "gpu")
    .flatMap((element, index) => devicesOf(element, index));
  return { gpus, driver: driver === undefined || driver === "" ? null : driver };
}

/** nvidia-smi writes its errors as plain text where the document should be. */
function firstLine(document: string): string {
  const line = document.trim().split("\n", 1)[0] ?? "";
  return line === "" || line.startsWith("<") ? "the report is incomplete" : line.slice(0, 200);
}

type Reasons = Partial<Record<MeasuredField, string>>;
type Values = Partial<Pick<Gpu, MeasuredField>>;

function devicesOf(element: XmlElement, index: number): Gpu[] {
  const uuid = textOf(find(element, "uuid"));
  // Without a name of its own a device cannot be told from the others over time.
  if (uuid === null) return [];
  const identity = {
    uuid,
    index,
    vendor: "nvidia",
    name: textOf(find(element, "product_name")),
  } as const;
  const memoryText = find(element, "fb_memory_usage", "used")?.text ?? "";
  if (/\blost\b/iu.test(memoryText)) return [lostGpu(identity, memoryText)];
  const reasons: Reasons = {};
  const sensors = sensorsOf(element, reasons);
  const migs = find(element, "mig_devices")?.children.filter(({ name }) => name === "mig_device");
  if (find(element, "mig_mode", "current_mig")?.text === "Enabled" && migs !== undefined) {
    return migs.map((mig) => migInstance(mig, element, { identity, sensors, reasons }));
  }
  const values = { ...sensors, ...memoryOf(element, reasons) };
  const processes = processesOf(element, () => true, reasons);
  const load = quantity(find(element, "utilization", "gpu_util"), "%");
  const utilization = noted("utilization_percent", load, reasons);
  return [
    makeGpu({ ...identity, ...values, processes, utilization_percent: utilization }, reasons),
  ];
}

interface Parent {
  readonly identity: Pick<Gpu, "uuid" | "index" | "vendor" | "name">;
  readonly sensors: Values;
  readonly reasons: Reasons;
}

function migInstance(mig: XmlElement, gpu: XmlElement, parent: Parent): Gpu {
  const reasons = { ...parent.reasons, utilization_percent: "not reported for MIG instances" };
  const gi = find(mig, "gpu_instance_id")?.text ?? "?";
  const ci = find(mig, "compute_instance_id")?.text ?? "?";
  const isOfInstance = (process: XmlElement): boolean =>
    find(process, "gpu_instance_id")?.text === gi &&
    find(process, "compute_instance_id")?.text === ci;
  return makeGpu(
    {
      ...parent.identity,
      ...parent.sensors,
      ...memoryOf(mig, reasons),
      // Reports without the instance's own UUID get the name older drivers gave it.
      uuid: textOf(find(mig, "uuid")) ?? `MIG-${parent.identity.uuid}/${gi}/${ci}`,
      parent_uuid: parent.identity.uuid,
      processes: processesOf(gpu, isOfInstance, reasons),
    },
    reasons,
  );
}

function memoryOf(element: XmlElement, reasons: Reasons): Values {
  const usage = find(element, "fb_memory_usage");
  const read = (name: string, field: MeasuredField): number | null =>
    noted(field, mebibytes(find(usage, name)), reasons);
  const total = read("total", "memory_total_bytes");
  const free = read("free", "memory_free_bytes");
  const used = read("used", "memory_used_bytes");
  const isWhole = total !== null && free !== null && total >= free;
  return {
    memory_total_bytes: total,
    memory_free_bytes: free,
    // Newer reports leave the driver's reserve out of "used"; what is not free is in use.
    memory_used_bytes: isWhole ? total - free : used,
    memory_reserved_bytes: read("reserved", "memory_reserved_bytes"),
  };
}

function sensorsOf(element: XmlElement, reasons: Reasons): Values {
  const power = find(element, "gpu_power_readings") ?? find(element, "power_readings");
  const draw =
    find(power, "power_draw") ??
    find(power, "instant_power_draw") ??
    find(power, "average_power_draw");
  const limit =
    find(power, "current_power_limit") ??
    find(power, "enforced_power_limit") ??
    find(power, "power_limit");
  const temperature = find(element, "temperature", "gpu_temp");
  return {
    power_watts: noted("power_watts", quantity(draw, "W"), reasons),
    power_limit_watts: noted("power_limit_watts", quantity(limit, "W"), reasons),
    temperature_celsius: noted("temperature_celsius", quantity(temperature, "C"), reasons),
    throttle_reasons: throttleOf(element, reasons),
    ecc_uncorrected_errors: eccOf(element, reasons),
  };
}

function throttleOf(element: XmlElement, reasons: Reasons): string[] | null {
  const list = find(element, "clocks_event_reasons") ?? find(element, "clocks_throttle_reasons");
  const entries = list?.children.filter(({ text }) => /^(?:Not )?Active$/u.test(text)) ?? [];
  if (entries.length === 0) {
    reasons.throttle_reasons = whyMissing(list?.text);
    return null;
  }
  return entries
    .filter(({ text }) => text === "Active")
    .map(({ name }) => name.replace(/^clocks_(?:event|throttle)_reason_/u, ""))
    .map((name) => (name === "display_clocks_setting" ? "display_clock_setting" : name));
}

function eccOf(element: XmlElement, reasons: Reasons): number | null {
  const volatile = find(element, "ecc_errors", "volatile");
  const older = find(volatile, "double_bit", "total");
  const counters =
    older === undefined
      ? (volatile?.children.filter(({ name }) => name.includes("uncorrectable")) ?? [])
      : [older];
  const values = counters.map((counter) => quantity(counter, "")).filter(isNumber);
  if (values.length > 0) return values.reduce((sum, value) => sum + value, 0);
  reasons.ecc_uncorrected_errors = whyMissing(counters[0]?.text);
  return null;
}

const KINDS: Readonly<Record<string, GpuProcess["kind"]>> = {
  C: "compute",
  G: "graphics",
  "C+G": "both",
  "M+C": "compute",
};

function processesOf(
  element: XmlElement,
  isWanted: (process: XmlElement) => boolean,
  reasons: Reasons,
): GpuProcess[] | null {
  const list = find(element, "processes");
  const infos = list?.children.filter(({ name }) => name === "process_info") ?? [];
  if (list === undefined || (infos.length === 0 && /N\/A|Not Supported/iu.test(list.text))) {
    reasons.processes = whyMissing(list?.text);
    return null;
  }
  return infos.filter(isWanted).flatMap((info): GpuProcess[] => {
    const pid = quantity(find(info, "pid"), "");
    if (!isNumber(pid) || !Number.isSafeInteger(pid)) return [];
    const bytes = mebibytes(find(info, "used_memory"));
    const kind = KINDS[find(info, "type")?.text ?? ""] ?? "unknown";
    const name = textOf(find(info, "process_name"));
    return [{ pid, memory_bytes: isNumber(bytes) ? bytes : null, kind, name, own: null }];
  });
}

/** A number in the wanted unit, or the reason why there is none. */
function quantity(element: XmlElement | undefined, unit: string): number | string {
  const text = element?.text ?? "";
  const parts = /^(?<digits>\d{1,18}(?:\.\d{1,9})?)(?: (?<unit>\S{1,8}))?$/u.exec(text)?.groups;
  if (parts === undefined || (parts["unit"] ?? "") !== unit) return whyMissing(element?.text);
  return Number(parts["digits"]);
}

function mebibytes(element: XmlElement | undefined): number | string {
  const value = quantity(element, "MiB");
  if (!isNumber(value)) return value;
  const bytes = Math.round(value * MIB);
  return bytes <= MOST_BYTES ? bytes : `not a plausible size: ${element?.text ?? ""}`;
}

function noted(field: MeasuredField, value: number | string, reasons: Reasons): number | null {
  if (isNumber(value)) return value;
  reasons[field] = value;
  return null;
}

function whyMissing(text: string | undefined): string {
  if (text === undefined || text === "") return "not in the report of nvidia-smi";
  return `nvidia-smi says ${text.slice(0, 80)}`;
}

function textOf(element: XmlElement | undefined): string | null {
  const text = element?.text ?? "";
  return text === "" ||
    /^\[?(?:N\/A|Not Supported|Not Found|ERR!|Unknown Error|Insufficient Permissions)\]?$/iu.test(
      text,
    )
    ? null
    : text;
}

function isNumber(value: unknown): value is number {
  return typeof value === "number";
}
