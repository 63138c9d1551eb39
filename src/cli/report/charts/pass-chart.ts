import type { Candidate } from "../findings.ts";
import { html, type Markup } from "../markup.ts";
import { linear, short } from "./scale.ts";

const WIDTH = 1_080;
const LEFT = 240;
const RIGHT = 60;
const BAR = 16;
const GROUP_GAP = 12;
const AXIS = 24;

/** pass@k of every candidate: one group of bars each, a bar for each k. */
export function passChart(candidates: readonly Candidate[]): Markup {
  const ks = candidates[0]?.pass_at_k.length ?? 0;
  const group = Math.max(1, ks) * BAR + GROUP_GAP;
  const height = candidates.length * group + AXIS;
  const x = linear([0, 1], [LEFT, WIDTH - RIGHT]);
  const best = new Map(
    candidates[0]?.pass_at_k.map(({ k }, at) => [
      k,
      Math.max(...candidates.map((one) => one.pass_at_k[at]?.value ?? 0)),
    ]),
  );
  const grid = [0, 0.25, 0.5, 0.75, 1].map(
    (value) =>
      html`<line class="grid" x1="${x(value)}" x2="${x(value)}" y1="0" y2="${height - AXIS}" />
        <text class="tick" x="${x(value)}" y="${height - 7}">${Math.round(value * 100)} %</text>`,
  );
  const groups = candidates.map((candidate, index) => {
    const top = index * group + GROUP_GAP / 2;
    const bars = candidate.pass_at_k.map(({ k, value }, at) => {
      const y = top + at * BAR;
      const isBest = value !== null && value > 0 && value === best.get(k);
      return html`<g class="passbar k${at} ${isBest && "best"}">
        <title>${candidate.id}: pass@${k} ${percent(value)}</title>
        <rect
          x="${LEFT}"
          y="${y + 1}"
          width="${Math.max(1, x(value ?? 0) - LEFT)}"
          height="${BAR - 2}"
          rx="2"
        />
        <text x="${x(value ?? 0) + 6}" y="${y + 12}">${percent(value)}</text>
        <text class="k" x="${LEFT - 8}" y="${y + 12}">@${k}</text>
      </g>`;
    });
    const middle = top + (ks * BAR) / 2 + 4;
    return html`<text class="candidate" x="0" y="${middle}"
        >${short(candidate.id, 28)}<title>${candidate.id}</title></text
      >${bars}`;
  });
  return html`<svg
    viewBox="0 0 ${WIDTH} ${height}"
    role="img"
    aria-label="pass@k of each candidate"
  >
    ${grid}${groups}
  </svg>`;
}

/** `62.5 %`; a dash where it cannot be estimated. */
export function percent(value: number | null): string {
  return value === null ? "–" : `${Number((value * 100).toFixed(1))} %`;
}
