import { html, type Markup } from "../markup.ts";
import { linear, ticks } from "./scale.ts";

export interface Series {
  readonly name: string;
  /** Class of its colour. */
  readonly colour: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** @default "line" */
  readonly style?: "line" | "dots" | "dashed" | "area";
}

export interface LineChart {
  readonly label: string;
  readonly series: readonly Series[];
  readonly xTicks: readonly number[];
  readonly xText: (value: number) => string;
  readonly yText: (value: number) => string;
  /** Round values of the y axis. @default ticks */
  readonly yTicks?: typeof ticks;
  readonly domain: readonly [number, number];
  /** What the y axis must reach at least. @default 0 */
  readonly atLeast?: number;
}

const WIDTH = 1_080;
const HEIGHT = 220;
const FRAME = { left: 64, right: 12, top: 10, bottom: 22 };

/** Curves over one axis, with round values at both. */
export function lineChart(chart: LineChart): Markup {
  const values = chart.series.flatMap(({ points }) => points.map(([, y]) => y));
  const top = Math.max(chart.atLeast ?? 0, ...values, 1e-9) * 1.05;
  const x = linear(chart.domain, [FRAME.left, WIDTH - FRAME.right]);
  const y = linear([0, top], [HEIGHT - FRAME.bottom, FRAME.top]);
  const floor = HEIGHT - FRAME.bottom;
  const lines = (chart.yTicks ?? ticks)(0, top, 4).map(
    (value) =>
      html`<line
          class="grid"
          x1="${FRAME.left}"
          x2="${WIDTH - FRAME.right}"
          y1="${y(value)}"
          y2="${y(value)}"
        />
        <text class="tick end" x="${FRAME.left - 8}" y="${y(value) + 4}"
          >${chart.yText(value)}</text
        >`,
  );
  const marks = chart.xTicks.map(
    (value) =>
      html`<text class="tick" x="${x(value)}" y="${HEIGHT - 6}">${chart.xText(value)}</text>`,
  );
  const drawn = chart.series.map((series) => {
    const points = series.points.map(([px, py]) => [round(x(px)), round(y(py))] as const);
    return drawSeries(series, points, floor);
  });
  return html`<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${chart.label}">
    ${lines}${marks}${drawn}
  </svg>`;
}

type Placed = readonly (readonly [number, number])[];

function drawSeries(
  { name, colour, style = "line" }: Series,
  points: Placed,
  floor: number,
): Markup {
  const title = html`<title>${name}</title>`;
  if (style === "dots") {
    return html`<g class="${colour} dots"
      >${title}${points.map(([px, py]) => html`<circle cx="${px}" cy="${py}" r="3.5" />`)}</g
    >`;
  }
  const path = points.map((point) => point.join(" ")).join("L");
  if (style === "area") {
    const [from, to] = [points[0]?.[0] ?? 0, points.at(-1)?.[0] ?? 0];
    return html`<path class="${colour} area" d="M${from} ${floor}L${path}L${to} ${floor}Z"
      >${title}</path
    >`;
  }
  return html`<path class="${colour} curve ${style}" d="M${path}">${title}</path>`;
}

/** Series on top of each other: each drawn as the sum of itself and those before it, largest first. */
export function stacked(series: readonly Series[]): Series[] {
  const sums = new Map<number, number>();
  const layers = series.map((one) => ({
    ...one,
    style: "area" as const,
    points: one.points.map(([px, py]) => {
      const sum = (sums.get(px) ?? 0) + py;
      sums.set(px, sum);
      return [px, sum] as const;
    }),
  }));
  return layers.toReversed();
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
