import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { lostGpu, makeGpu } from "../gpu.ts";
import type { Gpu, GpuProcess, Reading } from "../model.ts";
import type { DeviceSource, OpenResult } from "./source.ts";

const AMD_VENDOR = "0x1002";
/** A process that computes is listed by the kernel's compute driver, one entry per GPU. */
const KFD_PROCESSES = "class/kfd/kfd/proc";
const KFD_NODES = "class/kfd/kfd/topology/nodes";

interface Card {
  readonly folder: string;
  readonly index: number;
  readonly uuid: string;
  readonly name: string | null;
  /** The compute driver's number of this GPU; null where that driver is not loaded. */
  readonly kfdId: string | null;
}

/**
 * The amdgpu driver's own files: bytes, without a program to start.
 *
 * `rocm-smi` reads the same files and takes half a second to start, so it is not asked.
 */
export class AmdSource implements DeviceSource {
  readonly name = "amd";
  readonly #root: string;
  readonly #cards: readonly Card[];
  readonly #driver: string | null;

  private constructor(root: string, cards: readonly Card[]) {
    this.#root = root;
    this.#cards = cards;
    this.#driver = readText(join(root, "module/amdgpu/version")) ?? null;
  }

  /** `root` is where sysfs is. */
  static open(root = "/sys"): OpenResult {
    const cards = findCards(root);
    return cards.length === 0 ? "amd: no amdgpu device" : new AmdSource(root, cards);
  }

  read(): Promise<Reading> {
    const holders = this.#cards.some(({ kfdId }) => kfdId !== null) ? this.#holders() : undefined;
    const gpus = this.#cards.map((card) => this.#gpu(card, holders));
    return Promise.resolve({ gpus, driver: this.#driver, notes: [] });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  #gpu(card: Card, holders: ReadonlyMap<string, GpuProcess[]> | undefined): Gpu {
    const { uuid, index, name, folder } = card;
    const identity = { uuid, index, name, vendor: "amd" } as const;
    const total = readNumber(join(folder, "mem_info_vram_total"));
    if (total === null && readText(join(folder, "vendor")) === undefined) {
      return lostGpu(identity, "its files are gone from sysfs");
    }
    const used = readNumber(join(folder, "mem_info_vram_used"));
    const sensors = findSensors(folder);
    const microwatts =
      readNumber(join(sensors, "power1_average")) ?? readNumber(join(sensors, "power1_input"));
    const millidegrees = readNumber(join(sensors, "temp1_input"));
    const limit = readNumber(join(sensors, "power1_cap"));
    const processes = card.kfdId === null ? null : (holders?.get(card.kfdId) ?? []);
    return makeGpu(
      {
        ...identity,
        memory_total_bytes: total,
        memory_used_bytes: used,
        memory_free_bytes: total === null || used === null ? null : Math.max(0, total - used),
        utilization_percent: readNumber(join(folder, "gpu_busy_percent")),
        temperature_celsius: millidegrees === null ? null : millidegrees / 1000,
        power_watts: microwatts === null ? null : microwatts / 1e6,
        power_limit_watts: limit === null ? null : limit / 1e6,
        processes,
      },
      { processes: "the kernel's compute driver (kfd) is not loaded" },
      "not in this device's files",
    );
  }

  /** Holders of compute memory by the compute driver's number of the GPU. */
  #holders(): ReadonlyMap<string, GpuProcess[]> {
    const holders = new Map<string, GpuProcess[]>();
    const folder = join(this.#root, KFD_PROCESSES);
    for (const entry of list(folder)) {
      const pid = Number(entry);
      if (!Number.isInteger(pid)) continue;
      for (const file of list(join(folder, entry))) {
        const kfdId = /^vram_(?<id>\d+)$/u.exec(file)?.groups?.["id"];
        if (kfdId === undefined) continue;
        const bytes = readNumber(join(folder, entry, file));
        // The driver lists every GPU a process may use, most of them with nothing on it.
        if (bytes === 0) continue;
        const process: GpuProcess = {
          pid,
          memory_bytes: bytes,
          kind: "compute",
          name: null,
          own: null,
        };
        holders.set(kfdId, [...(holders.get(kfdId) ?? []), process]);
      }
    }
    return holders;
  }
}

function findCards(root: string): Card[] {
  const kfdIds = kfdIdsByAddress(root);
  const cards: Card[] = [];
  const entries = list(join(root, "class/drm")).filter((name) => /^card\d+$/u.test(name));
  for (const entry of entries.sort((a, b) => Number(a.slice(4)) - Number(b.slice(4)))) {
    const folder = join(root, "class/drm", entry, "device");
    if (readText(join(folder, "vendor")) !== AMD_VENDOR) continue;
    if (readNumber(join(folder, "mem_info_vram_total")) === null) continue;
    const address = pciAddress(folder) ?? entry;
    const serial = readText(join(folder, "unique_id"));
    cards.push({
      folder,
      index: cards.length,
      // Consumer cards have no serial number; their place on the bus names them until moved.
      uuid:
        serial === undefined || serial === "" ? `AMD-${address}` : `GPU-${serial.toLowerCase()}`,
      name: readText(join(folder, "product_name")) ?? null,
      kfdId: kfdIds.get(address) ?? null,
    });
  }
  return cards;
}

/** `domain` and `location_id` of a node are its PCI address in numbers. */
function kfdIdsByAddress(root: string): ReadonlyMap<string, string> {
  const ids = new Map<string, string>();
  for (const node of list(join(root, KFD_NODES))) {
    const folder = join(root, KFD_NODES, node);
    const id = readText(join(folder, "gpu_id"));
    const properties = readText(join(folder, "properties")) ?? "";
    const location = Number(/^location_id (?<n>\d+)$/mu.exec(properties)?.groups?.["n"] ?? "0");
    const domain = Number(/^domain (?<n>\d+)$/mu.exec(properties)?.groups?.["n"] ?? "0");
    // Node 0 is the CPU; its number is 0.
    if (id === undefined || id === "0") continue;
    const hex = (value: number, width: number): string => value.toString(16).padStart(width, "0");
    const [bus, slot, unit] = [location >> 8, (location >> 3) & 0x1f, location & 7];
    ids.set(`${hex(domain, 4)}:${hex(bus, 2)}:${hex(slot, 2)}.${unit}`, id);
  }
  return ids;
}

/** The link's target is the device's folder, named by its address. */
function pciAddress(folder: string): string | undefined {
  try {
    return basename(readlinkSync(folder));
  } catch {
    return undefined;
  }
}

function findSensors(folder: string): string {
  const [first = "none"] = list(join(folder, "hwmon"));
  return join(folder, "hwmon", first);
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

function readNumber(path: string): number | null {
  const text = readText(path);
  return text !== undefined && /^\d{1,18}$/u.test(text) ? Number(text) : null;
}
