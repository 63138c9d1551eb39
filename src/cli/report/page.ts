import { duration } from "../terminal.ts";
import { dagChart } from "./charts/dag.ts";
import { memory } from "./charts/scale.ts";
import { timelineChart } from "./charts/timeline.ts";
import { html, Markup } from "./markup.ts";
import type { ReportModel } from "./model.ts";
import { Palette } from "./palette.ts";
import {
  decisionSection,
  evaluationSection,
  legend,
  lossSection,
  memorySections,
  nodeSection,
  section,
} from "./sections.ts";
import { STYLE } from "./style.ts";

/** Nothing is loaded from anywhere and nothing runs: whatever a worker wrote stays text. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/** One page that needs nothing but itself. */
export function renderReport(model: ReportModel): string {
  const palette = new Palette(model.nodes.map(({ instance }) => instance));
  const title = `${model.name} · ${model.status}`;
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="${POLICY}" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title}</title>
        <style>
          ${new Markup(STYLE)}
        </style>
      </head>
      <body>
        <main>
          ${header(model)} ${facts(model)} ${errors(model)}
          ${model.evaluations.map(evaluationSection)}
          ${model.losses.length > 0 && lossSection(model.losses, lossPalette(model))}
          ${timeline(model, palette)} ${memorySections(model, palette)} ${graph(model, palette)}
          ${model.decisions.length > 0 && decisionSection(model.decisions)} ${nodeSection(model)}
          ${results(model)}
          <footer>${model.madeBy} · ${new Date(model.endMs).toISOString()}</footer>
        </main>
      </body>
    </html> `;
  return page.text;
}

function header({ name, id, status, startMs }: ReportModel): Markup {
  const start = new Date(startMs).toISOString().replace("T", " ").slice(0, 19);
  return html`<header>
    <h1>${name}</h1>
    <span class="pill ${status}">${status}</span>
    <span class="meta">started ${start} UTC</span> <span class="meta mono">${id}</span>
  </header>`;
}

function facts(model: ReportModel): Markup {
  const { nodes, jobs, samples } = model;
  const done = nodes.filter(({ state }) => state === "completed").length;
  const cached = nodes.filter(({ isCached }) => isCached).length;
  const ram = samples.map(({ instances }) => sum(Object.values(instances)));
  const vram = samples.flatMap(({ gpus }) => gpus.map((gpu) => sum(Object.values(gpu.instances))));
  const shown: [value: string, name: string][] = [
    [duration(model.endMs - model.startMs), "from submit to end"],
    [
      `${done} of ${nodes.length}`,
      cached === 0 ? "nodes completed" : `nodes completed, ${cached} cached`,
    ],
    [String(jobs.length), `jobs on ${new Set(jobs.map(({ instance }) => instance)).size} workers`],
    [ram.length === 0 ? "–" : memory(Math.max(...ram)), "RAM of workers at most"],
    [vram.length === 0 ? "no GPU" : memory(Math.max(...vram)), "VRAM of workers at most"],
  ];
  return html`<div class="facts">
    ${shown.map(([value, name]) => html`<div class="fact"><b>${value}</b><span>${name}</span></div>`)}
  </div>`;
}

/** What went wrong stands at the top. */
function errors({ nodes }: ReportModel): Markup {
  const bad = nodes.filter(({ error, state }) => error !== null && state !== "completed");
  if (bad.length === 0) return html``;
  const lines = bad.map(
    ({ id, error }) =>
      html`<tr>
        <td><b>${id}</b></td>
        <td class="error">${error}</td>
      </tr>`,
  );
  return section(
    "What went wrong",
    "The nodes that did not complete.",
    html`<table>
      ${lines}
    </table>`,
  );
}

function timeline(model: ReportModel, palette: Palette): Markup {
  const kinds = ["running", "loading", "waiting", "lost"] as const;
  const wholeMs = Math.max(1, model.endMs - model.startMs);
  const shares = kinds.flatMap((kind) => {
    const own = model.time.filter((span) => span.kind === kind);
    const ms = sum(own.map(({ fromMs, toMs }) => toMs - fromMs));
    return ms === 0 ? [] : [{ kind, ms }];
  });
  const bar = shares.map(
    ({ kind, ms }) =>
      html`<div class="s-${kind}" style="width:${((100 * ms) / wholeMs).toFixed(2)}%">
        <span></span>
      </div>`,
  );
  const words = shares.map(
    ({ kind, ms }) => html`<li class="s-${kind}"><i></i>${kind} ${duration(ms)}</li>`,
  );
  return section(
    "Timeline",
    "The whole time, and what ran in each lane; hatched is a worker being started.",
    html`<div class="share">${bar}</div>
      <ul class="legend">
        ${words}
      </ul>
      ${timelineChart(model, palette)} ${legend(palette.names, palette)}`,
  );
}

function graph(model: ReportModel, palette: Palette): Markup {
  return section(
    "Graph",
    "What each node was bound to, from top to bottom; ×n is the number of calls of a for_each. Edges that others imply are left out.",
    html`${dagChart(model.nodes, palette)}${legend(palette.names, palette)}`,
  );
}

function results({ results: all }: ReportModel): Markup {
  if (all.length === 0) return html``;
  const details = all.map(
    ({ node, text }, at) =>
      html`<details ${at === 0 && new Markup("open")}>
        <summary>${node}</summary>
        <pre>${text}</pre>
      </details>`,
  );
  return section("Results", "Of the nodes that no other node uses.", html`${details}`);
}

/** Trainings get colours of their own: two of them often share an instance. */
function lossPalette({ losses }: ReportModel): Palette {
  return new Palette(losses.map(({ node }) => node));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
