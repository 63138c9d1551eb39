import { html, type Markup } from "../markup.ts";
import type { ReportNode } from "../model.ts";
import type { Palette } from "../palette.ts";
import { layOut, type Point } from "./dag-layout.ts";
import { short } from "./scale.ts";

const SIZES = { nodeWidth: 186, nodeHeight: 42, gapX: 18, gapY: 20 };
const MARGIN = 8;

/** The composition as a graph, from what needs nothing down to the results. */
export function dagChart(nodes: readonly ReportNode[], palette: Palette): Markup {
  const layout = layOut(nodes, SIZES);
  const [width, height] = [layout.width + 2 * MARGIN, layout.height + 2 * MARGIN];
  const lines = layout.edges.map(
    ({ from, to, points }) =>
      html`<path class="edge" d="${pathOf(points)}"><title>${from} → ${to}</title></path>`,
  );
  const boxes = nodes.map((node) => boxOf(node, layout.nodes.get(node.id), palette));
  return html`<div class="scroll">
    <svg
      class="dag"
      width="${Math.ceil(width)}"
      height="${Math.ceil(height)}"
      viewBox="0 0 ${width} ${height}"
      role="img"
      aria-label="Graph of the nodes"
    >
      <g transform="translate(${MARGIN} ${MARGIN})">${lines}${boxes}</g>
    </svg>
  </div>`;
}

const MARKS: Readonly<Record<string, string>> = {
  completed: "✓",
  failed: "✗",
  skipped: "–",
  cancelled: "■",
  running: "▶",
  pending: "…",
};

function boxOf(node: ReportNode, at: Point | undefined, palette: Palette): Markup {
  if (at === undefined) return html``;
  const { id, instance, action, state, items, isCached } = node;
  const count = items === null ? "" : ` ×${total(items)}`;
  const cached = isCached ? " · cached" : "";
  const title = `${id}: ${state}${cached}\n${instance}.${action}${count}`;
  return html`<g class="node ${state}" transform="translate(${at.x - SIZES.nodeWidth / 2} ${at.y})">
    <title>${title}</title>
    <rect width="${SIZES.nodeWidth}" height="${SIZES.nodeHeight}" rx="7" />
    <rect
      class="${palette.classOf(instance)} stripe"
      width="5"
      height="${SIZES.nodeHeight}"
      rx="2"
    />
    <text class="name" x="14" y="18">${short(id, 21)}${count}</text>
    <text class="what" x="14" y="34">${short(`${instance}.${action}${cached}`, 29)}</text>
    <text class="mark" x="${SIZES.nodeWidth - 10}" y="18">${MARKS[state] ?? "?"}</text>
  </g>`;
}

function total(items: Readonly<Record<string, number>>): number {
  return Object.values(items).reduce((sum, count) => sum + count, 0);
}

/** Straight down past the boxes, curved between the layers. */
function pathOf(points: readonly Point[]): string {
  const [first, ...rest] = points;
  if (first === undefined) return "";
  let y = first.y + SIZES.nodeHeight;
  let path = `M${round(first.x)} ${round(y)}`;
  for (const [index, point] of rest.entries()) {
    const middle = (y + point.y) / 2;
    const curve = [points[index]?.x ?? 0, middle, point.x, middle, point.x, point.y].map(round);
    path += `C${curve.join(" ")}`;
    const isPassing = index < rest.length - 1;
    y = point.y + (isPassing ? SIZES.nodeHeight : 0);
    if (isPassing) path += `V${round(y)}`;
  }
  return path;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
