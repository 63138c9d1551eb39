import { availableParallelism } from "node:os";
import { z } from "cjm-substrate/worker";
import si from "systeminformation";

const bytes = z.int().nonnegative().nullable();

export const systemSchema = z.object({
  cpu: z.object({
    name: z.string().nullable(),
    logical_cores: z.int().positive(),
    load_percent: z.number().nullable(),
  }),
  ram: z.object({
    total_bytes: bytes,
    available_bytes: bytes,
    used_bytes: bytes,
    swap_total_bytes: bytes,
    swap_used_bytes: bytes,
  }),
  disk: z.array(
    z.object({
      mount: z.string(),
      type: z.string(),
      total_bytes: bytes,
      used_bytes: bytes,
      available_bytes: bytes,
    }),
  ),
});
export type SystemReport = z.output<typeof systemSchema>;

let cpuName: Promise<string | null> | undefined;

/** CPU, memory and disks. Never asks systeminformation for graphics: that call blocks the process. */
export async function readSystem(): Promise<SystemReport> {
  // Asked once: it starts several programs and the answer does not change.
  cpuName ??= si.cpu().then(
    ({ manufacturer, brand }) => `${manufacturer} ${brand}`.trim() || null,
    () => null,
  );
  const [load, memory, disks, name] = await Promise.all([
    si.currentLoad(),
    si.mem(),
    si.fsSize(),
    cpuName,
  ]);
  return {
    cpu: {
      name,
      logical_cores: availableParallelism(),
      load_percent: numberOrNull(load.currentLoad),
    },
    ram: {
      total_bytes: bytesOrNull(memory.total),
      available_bytes: bytesOrNull(memory.available),
      used_bytes: bytesOrNull(memory.total - memory.available),
      swap_total_bytes: bytesOrNull(memory.swaptotal),
      swap_used_bytes: bytesOrNull(memory.swapused),
    },
    disk: disks.map(({ mount, type, size, used, available }) => ({
      mount,
      type,
      total_bytes: bytesOrNull(size),
      used_bytes: bytesOrNull(used),
      available_bytes: bytesOrNull(available),
    })),
  };
}

/** systeminformation answers null or NaN, against its own types, for what it cannot read. */
function numberOrNull(value: number | null | undefined): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function bytesOrNull(value: number | null | undefined): number | null {
  const number = numberOrNull(value);
  return number === null || number < 0 ? null : Math.round(number);
}
