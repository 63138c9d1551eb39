import type { Span } from "../../queue/index.ts";
import { isRecord } from "../../util/record.ts";
import { duration } from "../terminal.ts";
import { lineChart, stacked, type Series } from "./charts/line-chart.ts";
import { passChart, percent } from "./charts/pass-chart.ts";
import { clock, memory, memoryTicks, ticks, timeTicks } from "./charts/scale.ts";
import type { Candidate, Evaluation, Losses } from "./findings.ts";
import { html, type Markup } from "./markup.ts";
import type { ReportDecision, ReportModel, ReportNode, ReportSample } from "./model.ts";
import type { Palette } from "./palette.ts";

/** A section of the page with what it shows in one sentence. */
export function section(title: string, says: string, body: Markup): Markup {
  return html`<section>
    <h2>${title}</h2>
    <p>${says}</p>
    ${body}
  </section>`;
}

export function legend(names: readonly string[], palette: Palette): Markup {
  const entries = names.map(
    (name) => html`<li class="${palette.classOf(name)}"><i></i>${name}</li>`,
  );
  return html`<ul class="legend">
    ${entries}
  </ul>`;
}

/** pass@k bars of one evaluation, and the numbers behind them. */
export function evaluationSection({ node, candidates }: Evaluation): Markup {
  const families = [...new Set(candidates.flatMap((one) => one.families.map((own) => own.family)))];
  const named = families.length > 1 ? families : [];
  const head = ["candidate", "pass rate", ...named, "diversity", "fitness", "answers"];
  const columns = candidates.map((one) => [
    one.pass_rate,
    ...named.map((name) => one.families.find(({ family }) => family === name)?.pass_rate ?? null),
    one.diversity,
    one.fitness,
  ]);
  const best = head.slice(1, -1).map((_, at) => bestOf(columns.map((row) => row[at] ?? 0)));
  const rows = candidates.map((one, index) => rowOf(one, columns[index] ?? [], best));
  const says =
    "pass@k is the chance that at least one of k answers passes all cases in the sandbox (unbiased estimate); the best of each column is bold.";
  return section(
    `pass@k · ${node}`,
    says,
    html`${passChart(candidates)}
      <div class="wide">
        <table>
          <tr>
            ${head.map((name, at) => html`<th class="${at > 0 && "n"}">${name}</th>`)}
          </tr>
          ${rows}
        </table>
      </div>`,
  );
}

/** NaN, which nothing equals, where all are the same. */
function bestOf(values: readonly number[]): number {
  return new Set(values).size > 1 ? Math.max(...values) : Number.NaN;
}

function rowOf(
  { id, samples }: Candidate,
  values: readonly (number | null)[],
  best: readonly number[],
): Markup {
  const cells = values.map((value, at) => {
    const isBest = value !== null && value === best[at];
    // The last two are no shares of tasks.
    const text = at >= values.length - 2 ? (value?.toFixed(3) ?? "–") : percent(value);
    return html`<td class="n ${isBest && "best"}">${text}</td>`;
  });
  return html`<tr>
    <td>${id}</td>
    ${cells}
    <td class="n">${samples ?? "–"}</td>
  </tr>`;
}

/** Training losses over steps; evaluations as dots. */
export function lossSection(losses: readonly Losses[], palette: Palette): Markup {
  const series = losses.flatMap(({ node, training, evaluation }): Series[] => {
    const colour = palette.classOf(node);
    const points = (list: typeof training): [number, number][] =>
      list.map(({ step, loss }) => [step, loss]);
    const curve: Series = { name: `${node}: training`, colour, points: points(training) };
    const dots: Series = {
      name: `${node}: evaluation`,
      colour,
      points: points(evaluation),
      style: "dots",
    };
    return [curve, dots].filter((one) => one.points.length > 0);
  });
  const last = Math.max(1, ...series.flatMap(({ points }) => points.map(([step]) => step)));
  const chart = lineChart({
    label: "Losses over steps",
    series,
    domain: [0, last],
    xTicks: ticks(0, last, 8),
    xText: (step) => (step === 0 ? "step 0" : String(step)),
    yText: (loss) => String(Number(loss.toPrecision(2))),
  });
  const names = losses.map(({ node }) => node);
  return section(
    "Loss",
    "Training loss at each step; rings are losses on held-out rows.",
    html`${chart}${legend(names, palette)}`,
  );
}

/** RAM of the workers, and VRAM of each GPU. */
export function memorySections(model: ReportModel, palette: Palette): Markup {
  const { samples } = model;
  if (samples.length === 0) {
    const body = html`<p class="soft">
      Nothing was sampled: it was over too soon, or the samples are past their retention.
    </p>`;
    return section("Memory", "What the workers held while jobs ran.", body);
  }
  const names = palette.names.filter((name) => samples.some(({ instances }) => name in instances));
  const used = Math.max(...samples.map(({ ram }) => ram.used));
  const total = samples[0]?.ram.total ?? 0;
  const held = (pick: (sample: ReportSample) => Readonly<Record<string, number>>): Series[] =>
    stacked(
      names.map((name) => ({
        name,
        colour: palette.classOf(name),
        points: samples.map((sample) => [sample.atMs - model.startMs, pick(sample)[name] ?? 0]),
      })),
    );
  const ram = section(
    "RAM",
    `What each worker's process tree held, stacked. The whole machine had ${memory(used)} of ${memory(total)} in use at most.`,
    html`${memoryChart(
      "RAM of the workers",
      held(({ instances }) => instances),
      model,
    )}${legend(names, palette)}`,
  );
  const gpus = samples.find((sample) => sample.gpus.length > 0)?.gpus ?? [];
  if (gpus.length === 0) {
    return html`${ram}${section("VRAM", "No GPU was measured on this machine.", html``)}`;
  }
  const charts = gpus.map(({ index, name, total: size }, at) => {
    const own = held((sample) => sample.gpus[at]?.instances ?? {});
    const all: Series = {
      name: "in use by anybody",
      colour: "c7",
      style: "dashed",
      points: samples.map((one) => [one.atMs - model.startMs, one.gpus[at]?.used ?? 0]),
    };
    return section(
      `VRAM · GPU ${index} ${name ?? ""}`,
      `What each worker held, stacked; the dashed line is all that was in use${size === null ? "" : ` of ${memory(size)}`}.`,
      html`${memoryChart("VRAM", [...own, all], model)}${legend(names, palette)}`,
    );
  });
  return html`${ram}${charts}`;
}

function memoryChart(label: string, series: readonly Series[], model: ReportModel): Markup {
  const wholeMs = Math.max(1, model.endMs - model.startMs);
  return lineChart({
    label,
    series,
    domain: [0, wholeMs],
    xTicks: timeTicks(wholeMs, 10),
    xText: clock,
    yText: memory,
    yTicks: memoryTicks,
    atLeast: 64,
  });
}

/** What was decided, and by which numbers. */
export function decisionSection(decisions: readonly ReportDecision[]): Markup {
  const rows = decisions.map(
    ({ node, kind, subject, reason, evidence }) =>
      html`<tr>
        <td class="nowrap"><b>${kind}</b></td>
        <td>${subject}</td>
        <td>${reason}</td>
        <td class="evidence">${evidenceOf(evidence)}</td>
        <td class="soft nowrap">${node}</td>
      </tr>`,
  );
  const body = html`<div class="wide">
    <table>
      <tr>
        ${["decision", "about", "why", "numbers", "node"].map((name) => html`<th>${name}</th>`)}
      </tr>
      ${rows}
    </table>
  </div>`;
  return section(
    "Decisions",
    "As they stand in the journal, with the numbers they were made by.",
    body,
  );
}

/** Numbers by name; a long list is counted, an object is told by what is in it. */
function evidenceOf(evidence: unknown): Markup {
  if (!isRecord(evidence)) return html``;
  const entries = Object.entries(evidence).map(
    ([name, value]) => html`<span>${name.replaceAll("_", " ")} <b>${brief(value)}</b></span>`,
  );
  return html`${entries}`;
}

const MAX_LISTED = 4;

function brief(value: unknown): string {
  if (typeof value === "number") return String(Number(value.toPrecision(3)));
  if (Array.isArray(value)) {
    if (value.length > MAX_LISTED) return `${value.length} of them`;
    return value.length === 0 ? "none" : value.map(brief).join(", ");
  }
  if (isRecord(value)) return Object.values(value).map(brief).join(" ");
  return typeof value === "string" || typeof value === "boolean" ? String(value) : "–";
}

/** Every node with its time. */
export function nodeSection(model: ReportModel): Markup {
  const jobs = Map.groupBy(model.jobs, ({ node }) => node);
  const rows = model.nodes.map((node) => {
    const spans = (jobs.get(node.id) ?? []).flatMap((job) => job.spans);
    return html`<tr>
      <td>${node.id}</td>
      <td class="soft">${node.instance}.${node.action}</td>
      <td>${stateOf(node)}</td>
      <td class="n">${jobs.get(node.id)?.length ?? 0}</td>
      <td class="n nowrap">${spent(spans, "waiting")}</td>
      <td class="n nowrap">${spent(spans, "loading")}</td>
      <td class="n nowrap">${spent(spans, "running")}</td>
      <td class="error">${node.error ?? ""}</td>
    </tr>`;
  });
  const head = ["node", "call", "state", "jobs", "waited", "loaded", "ran", "error"];
  const body = html`<div class="wide">
    <table>
      <tr>
        ${head.map((name, at) => html`<th class="${at > 2 && at < 7 && "n"}">${name}</th>`)}
      </tr>
      ${rows}
    </table>
  </div>`;
  return section("Nodes", "Times are sums over the jobs of a node, which may run at once.", body);
}

function stateOf({ state, items, isCached }: ReportNode): string {
  const counts = Object.entries(items ?? {}).filter(([one]) => one !== state);
  const rest = counts.map(([one, count]) => `${count} ${one}`).join(", ");
  return `${state}${isCached ? ", from the cache" : ""}${rest === "" ? "" : ` (${rest})`}`;
}

function spent(spans: readonly Span[], kind: Span["kind"]): string {
  const ms = spans.reduce(
    (sum, span) => sum + (span.kind === kind ? span.toMs - span.fromMs : 0),
    0,
  );
  return ms === 0 ? "–" : duration(ms);
}
