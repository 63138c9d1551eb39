import type { Measurements } from "../door/index.ts";

type TelemetrySnapshot = Measurements["snapshot"];
type GpuSnapshot = TelemetrySnapshot["gpus"][number];
type InstanceSnapshot = TelemetrySnapshot["instances"][number];
type JobMeasurement = Measurements["jobs"][number];

export interface TopView extends Measurements {
  /** Columns of the terminal. @default 80 */
  readonly width?: number;
}

/** A column: its head, the share of spare width it may take, and how it is set. */
interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => string;
  readonly isText?: boolean;
}

const BAR_CELLS = 10;
const GAP = "  ";
const UNKNOWN = "?";

/**
 * The table of `cjm-ctl top`, one line each, no line wider than asked for. Pure.
 *
 * What is not known is `?`; numbers are right-aligned; the first column gives way when it is narrow.
 */
export function renderTop({ snapshot, jobs, width = 80 }: TopView): readonly string[] {
  const lines = [
    header(snapshot),
    "",
    ...(snapshot.gpus.length === 0
      ? [noGpus(snapshot)]
      : table(snapshot.gpus, gpuColumns(snapshot), width)),
    "",
    ...table(snapshot.instances, instanceColumns(snapshot.gpus), width),
    ...(jobs.length === 0 ? [] : ["", ...table(jobs, JOB_COLUMNS, width)]),
  ];
  return lines.map((line) => cut(line.trimEnd(), width));
}

function header({ source, ageMs, isLive, ram }: TelemetrySnapshot): string {
  const age = ageMs === null ? "" : ` ${(ageMs / 1000).toFixed(1)} s ago`;
  const state = isLive ? "" : " (silent)";
  const used = bar((ram.totalMb - ram.availableMb) / ram.totalMb);
  const total = size(ram.totalMb);
  return `gpu: ${source ?? "no monitor"}${age}${state}   ram: ${used} ${size(ram.availableMb)} free of ${total}`;
}

function noGpus({ source }: TelemetrySnapshot): string {
  return source === null ? "no GPU numbers: the monitor has not answered" : "no GPU";
}

function gpuColumns({ isLive }: TelemetrySnapshot): readonly Column<GpuSnapshot>[] {
  return [
    { head: "GPU", cell: ({ index, name, uuid }) => `${index} ${name ?? uuid}`, isText: true },
    { head: "USED", cell: ({ usedMb }) => size(usedMb) },
    { head: "", cell: (gpu) => (gpu.lost ? "LOST" : bar(share(gpu))), isText: true },
    { head: isLive ? "FREE" : "FREE?", cell: ({ freeMb }) => size(freeMb) },
    { head: "OTHERS", cell: ({ foreignMb }) => size(foreignMb) },
    { head: "LOAD", cell: ({ utilizationPercent: load }) => percent(load) },
  ];
}

function share({ usedMb, totalMb }: GpuSnapshot): number | null {
  return usedMb === null || totalMb === null || totalMb === 0 ? null : usedMb / totalMb;
}

function instanceColumns(gpus: readonly GpuSnapshot[]): readonly Column<InstanceSnapshot>[] {
  const held = ({ instanceId }: InstanceSnapshot): string => {
    const uses = gpus.flatMap((gpu) => gpu.instances[instanceId] ?? []);
    const mb = uses.reduce((sum, use) => sum + use.mb, 0);
    // A tilde marks what was not read but concluded.
    const isSure = uses.every(({ confidence }) => confidence === 1);
    return uses.length === 0 ? "-" : `${isSure ? "" : "~"}${size(mb)}`;
  };
  return [
    { head: "INSTANCE", cell: ({ instanceId }) => instanceId, isText: true },
    { head: "PID", cell: ({ pid }) => String(pid) },
    { head: "PROCS", cell: ({ processes }) => String(processes) },
    { head: "RAM", cell: ({ hostMb }) => size(hostMb) },
    { head: "VRAM", cell: held },
    { head: "JOBS", cell: ({ jobs }) => String(jobs.length) },
  ];
}

const JOB_COLUMNS: readonly Column<JobMeasurement>[] = [
  { head: "JOB", cell: ({ jobId }) => jobId, isText: true },
  { head: "INSTANCE", cell: ({ instanceId }) => cut(instanceId, 18), isText: true },
  { head: "TIME", cell: ({ durationMs }) => duration(durationMs) },
  { head: "CPU", cell: ({ cpuPercentMean }) => percent(cpuPercentMean) },
  { head: "RAM PEAK", cell: ({ hostPeakMb }) => size(hostPeakMb) },
  { head: "VRAM PEAK", cell: ({ gpuPeakMb }) => size(sumOf(gpuPeakMb)) },
];

function sumOf(peaks: Readonly<Record<string, number>> | null): number | null {
  return peaks === null ? null : Object.values(peaks).reduce((sum, mb) => sum + mb, 0);
}

function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number,
): readonly string[] {
  const cells = [columns.map(({ head }) => head)];
  for (const row of rows) cells.push(columns.map(({ cell }) => printable(cell(row))));
  const widths = columns.map((_, index) =>
    Math.max(...cells.map((line) => line[index]?.length ?? 0)),
  );
  const rest = widths.slice(1).reduce((sum, column) => sum + column + GAP.length, 0);
  widths[0] = Math.max(4, Math.min(widths[0] ?? 0, width - rest));
  return cells.map((line) =>
    line
      .map((cell, index) => {
        const column = widths[index] ?? 0;
        const text = cut(cell, column);
        return columns[index]?.isText === true ? text.padEnd(column) : text.padStart(column);
      })
      .join(GAP),
  );
}

/** Names come from drivers and other programs: nothing in them may move the cursor. */
function printable(text: string): string {
  return text.replaceAll(/[^\u{20}-\u{7e}\u{a1}-\u{ffff}]/gu, "?");
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}

function bar(filled: number | null): string {
  if (filled === null || !Number.isFinite(filled)) return UNKNOWN.padEnd(BAR_CELLS + 2);
  const cells = Math.round(Math.min(1, Math.max(0, filled)) * BAR_CELLS);
  return `[${"#".repeat(cells).padEnd(BAR_CELLS)}]`;
}

/** Gibibytes from one gibibyte on, with one digit after the point. */
function size(mb: number | null): string {
  if (mb === null) return UNKNOWN;
  return mb < 1024 ? `${Math.round(mb)}M` : `${(mb / 1024).toFixed(1)}G`;
}

function percent(value: number | null): string {
  return value === null ? UNKNOWN : `${Math.round(value)}%`;
}

function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m${String(seconds % 60).padStart(2, "0")}s`;
  return `${Math.floor(minutes / 60)}h${String(minutes % 60).padStart(2, "0")}m`;
}
