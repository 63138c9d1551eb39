import { duration } from "../../terminal.ts";
import { html, type Markup } from "../markup.ts";
import type { ReportJob, ReportModel } from "../model.ts";
import type { Palette } from "../palette.ts";
import { clock, linear, short, timeTicks } from "./scale.ts";

const WIDTH = 1_080;
const LEFT = 64;
const LANE = 26;
const AXIS = 22;
/** Narrower bars of one node in one lane are drawn as one. */
const MIN_BAR = 1.2;
/** Fewer characters of a longer name say nothing. */
const MIN_LABEL = 9;
/** Rough width of a character of a bar's label. */
const CHARACTER = 6.4;

/** What ran at once, lane by lane. */
interface Bar {
  readonly kind: "loading" | "running" | "lost";
  readonly job: ReportJob;
  readonly fromMs: number;
  readonly toMs: number;
  readonly jobs: number;
}

/** Lanes of the queue over time: what each was loading or running. */
export function timelineChart(model: ReportModel, palette: Palette): Markup {
  const lanes = lanesOf(model.jobs);
  const wholeMs = Math.max(1, model.endMs - model.startMs);
  const x = linear([0, wholeMs], [LEFT, WIDTH - 12]);
  const place = (ms: number): number => x(ms - model.startMs);
  const height = lanes.length * LANE + AXIS;
  const grid = timeTicks(wholeMs, 10).map(
    (ms) =>
      html`<line class="grid" x1="${x(ms)}" x2="${x(ms)}" y1="0" y2="${height - AXIS}" />
        <text class="tick" x="${x(ms)}" y="${height - 6}">${clock(ms)}</text>`,
  );
  const rows = lanes.map((bars, lane) => {
    const y = lane * LANE;
    const drawn = joined(bars, place).map((bar) => barOf(bar, { y, place, palette }));
    return html`<text class="lane" x="0" y="${y + 17}">lane ${lane + 1}</text>${drawn}`;
  });
  return html`<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="What ran in which lane">
    <defs>
      <pattern
        id="hatch"
        width="6"
        height="6"
        patternUnits="userSpaceOnUse"
        patternTransform="rotate(45)"
      >
        <rect width="3" height="6" class="hatch" />
      </pattern>
    </defs>
    ${grid}${rows}
  </svg>`;
}

/** Every attempt in the first lane that is free when it begins. */
function lanesOf(jobs: readonly ReportJob[]): Bar[][] {
  const bars = jobs
    .flatMap((job) =>
      job.spans.flatMap(({ kind, fromMs, toMs }) =>
        kind === "waiting" ? [] : [{ kind, job, fromMs, toMs, jobs: 1 }],
      ),
    )
    .toSorted((a, b) => a.fromMs - b.fromMs || a.toMs - b.toMs);
  const lanes: Bar[][] = [];
  const laneOf = new Map<string, Bar[]>();
  for (const bar of bars) {
    // Loading and running of one attempt stay in one lane.
    const own = laneOf.get(bar.job.id);
    const isFree = (lane: Bar[]): boolean => (lane.at(-1)?.toMs ?? 0) <= bar.fromMs;
    let lane = own !== undefined && isFree(own) ? own : lanes.find(isFree);
    if (lane === undefined) lanes.push((lane = []));
    lane.push(bar);
    laneOf.set(bar.job.id, lane);
  }
  return lanes;
}

/** Bars too narrow to be seen, of the same node, become one. */
function joined(bars: readonly Bar[], place: (ms: number) => number): Bar[] {
  const drawn: Bar[] = [];
  for (const bar of bars) {
    const last = drawn.at(-1);
    const isNarrow = (one: Bar): boolean => place(one.toMs) - place(one.fromMs) < MIN_BAR;
    const isClose = last !== undefined && place(bar.fromMs) - place(last.toMs) < MIN_BAR;
    const isSame = last?.job.node === bar.job.node && last.kind === bar.kind;
    if (last !== undefined && isClose && isSame && (isNarrow(bar) || isNarrow(last))) {
      drawn[drawn.length - 1] = { ...last, toMs: bar.toMs, jobs: last.jobs + 1 };
    } else drawn.push(bar);
  }
  return drawn;
}

function barOf(
  bar: Bar,
  at: { readonly y: number; readonly place: (ms: number) => number; readonly palette: Palette },
): Markup {
  const { kind, job, fromMs, toMs, jobs } = bar;
  const left = at.place(fromMs);
  const width = Math.max(0.8, at.place(toMs) - left);
  const item = job.item === null || job.item < 0 ? "" : ` #${job.item}`;
  const what = jobs === 1 ? `${job.node}${item}` : `${job.node}, ${jobs} jobs`;
  const colour = `${at.palette.classOf(job.instance)} bar ${kind} ${job.status}`;
  const room = Math.floor((width - 8) / CHARACTER);
  const hasRoom = room >= Math.min(job.node.length, MIN_LABEL);
  const label = hasRoom && kind === "running" && short(job.node, room);
  return html`<g>
    <title>${what} (${job.instance}): ${kind} ${duration(toMs - fromMs)}, ${job.status}</title>
    <rect
      class="${colour}"
      x="${left}"
      y="${at.y + 3}"
      width="${width}"
      height="${LANE - 6}"
      rx="2"
    />
    ${kind === "loading" && html`<rect fill="url(#hatch)" x="${left}" y="${at.y + 3}" width="${width}" height="${LANE - 6}" rx="2" />`}
    ${label !== false && html`<text class="barlabel" x="${left + 5}" y="${at.y + 17}">${label}</text>`}
  </g>`;
}
