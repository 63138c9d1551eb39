import { setTimeout as delay } from "node:timers/promises";
import { DoorClient, type HostStatus, type JobLine } from "../../door/index.ts";
import { readHostInfo } from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, harmless, print, printJson, table } from "../terminal.ts";

export interface StatusOptions extends GlobalOptions {
  readonly watch?: boolean;
  readonly json?: boolean;
}

export async function statusCommand(options: StatusOptions): Promise<number> {
  const { dataDir } = await configOf(options);
  const live = await readHostInfo(dataDir);
  if (live?.door == null) {
    if (options.json === true) printJson({ live: false, data_dir: dataDir });
    else print(`No host runs on ${dataDir}.`);
    return EXIT.ok;
  }
  await using client = new DoorClient(live.door);
  do {
    const status = await client.status();
    if (options.watch === true && process.stdout.isTTY) process.stdout.write("\u001b[H\u001b[2J");
    if (options.json === true) printJson(status);
    else print(render(status));
    if (options.watch === true) await delay(1_000);
  } while (options.watch === true);
  return EXIT.ok;
}

function render(status: HostStatus): string {
  const jobs = Object.entries(status.jobs).map(([state, count]) => `${count} ${state}`);
  const blocks = [
    `host ${status.pid}  ${status.data_dir}`,
    `lanes ${status.lanes.in_use}/${status.lanes.limit}  ${jobs.join(", ")}`,
    memoryLine(status),
    status.journal_available ? "" : color.red("the journal cannot be written: no new work"),
    section("INSTANCE", status.instances.map(instanceCells)),
    section("GPU", status.gpus.map(gpuCells)),
    section(
      "RUNNING",
      status.running.map((job) => jobCells(job, job.status_message)),
    ),
    section(
      "PENDING",
      status.pending.map((job) => jobCells(job, job.block_reason ?? "")),
    ),
  ];
  return blocks.filter((block) => block !== "").join("\n");
}

function memoryLine({ ram_free_mb: ram, disk_free_mb: disk }: HostStatus): string {
  return `free: RAM ${megabytes(ram)}, disk ${megabytes(disk)}`;
}

function section(title: string, rows: readonly (readonly string[])[]): string {
  return rows.length === 0 ? "" : `\n${color.bold(title)}\n${table(rows)}`;
}

function instanceCells(instance: HostStatus["instances"][number]): string[] {
  return [
    instance.id,
    instance.state,
    instance.pid === null ? "-" : String(instance.pid),
    `RAM ${megabytes(instance.ram_mb)}`,
    `VRAM ${megabytes(instance.vram_mb)}`,
  ];
}

function gpuCells(gpu: HostStatus["gpus"][number]): string[] {
  return [
    harmless(gpu.uuid),
    `total ${megabytes(gpu.total_mb)}`,
    `free ${megabytes(gpu.free_mb)}`,
    `reserved ${megabytes(gpu.reserved_mb)}`,
    `resident ${megabytes(gpu.resident_mb)}`,
  ];
}

function jobCells(job: JobLine, note: string): string[] {
  return [job.id.slice(0, 8), job.instance, job.node_id ?? "-", harmless(note)];
}

function megabytes(value: number | null): string {
  if (value === null) return "?";
  return value >= 10_240 ? `${(value / 1_024).toFixed(1)} GiB` : `${Math.round(value)} MiB`;
}
