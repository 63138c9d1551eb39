import type { ReportModel } from "../../src/cli/report/model.ts";

const START = Date.UTC(2026, 0, 1);
const at = (seconds: number): number => START + seconds * 1_000;

/** What a worker might write to break out of its place in a page. */
export const HOSTILE = `</title></style></svg><script>document.title="broken"</script><img src=x onerror=alert(1)>'"&\u0000`;

type Life = readonly [kind: "waiting" | "loading" | "running", from: number, to: number];

function job(node: string, instance: string, lives: readonly Life[], item: number | null = null) {
  const spans = lives.map(([kind, from, to]) => {
    return { kind, what: "", fromMs: at(from), toMs: at(to), behindJobId: null };
  });
  return { id: `${node}-${item}`, node, item, instance, status: "completed", spans };
}

const node = (id: string, instance: string, needs: readonly string[], more: object = {}) => {
  const action = instance === "trainer" ? "train" : "run";
  return {
    id,
    instance,
    action,
    state: "completed",
    needs,
    items: null,
    error: null,
    isCached: false,
    ...more,
  };
};

const curve = (start: number, end: number): { step: number; loss: number }[] =>
  Array.from({ length: 60 }, (_, n) => {
    const noise = 0.06 * Math.sin(n * 12.9);
    return { step: n * 5, loss: end + (start - end) * Math.exp(-n / 12) + noise };
  });

const candidate = (id: string, text: number, number: number) => {
  const rate = (text + number) / 2;
  return {
    id,
    pass_rate: rate,
    pass_at_k: [
      { k: 1, value: rate },
      { k: 4, value: Math.min(1, rate * 1.4) },
      { k: 16, value: null },
    ],
    families: [
      { family: "text", pass_rate: text, tasks: 8 },
      { family: "number", pass_rate: number, tasks: 8 },
    ],
    fitness: rate * 0.7 + 0.1,
    diversity: 0.33,
    samples: 128,
  };
};

/** A factory of models on one GPU: two trainings, merges, generations, checks, one failure. */
export function reportModel(): ReportModel {
  return {
    id: "01900000-0000-7000-8000-000000000000",
    name: `model-factory ${HOSTILE}`,
    status: "failed",
    startMs: at(0),
    endMs: at(120),
    nodes: [
      node("base", "trainer", [], { isCached: true }),
      node("train-a", "trainer", ["base"]),
      node("train-b", "trainer", ["base"]),
      node("merge", "merger", ["train-a", "train-b", "base"], { items: { completed: 3 } }),
      node("generate", "inference", ["merge", "train-a"], { items: { completed: 12 } }),
      node("check", "sandbox", ["generate"], { items: { completed: 11, failed: 1 } }),
      node("score", "evaluation", ["check", "generate"]),
      node("register", "registry", ["score", "merge"], { state: "failed", error: HOSTILE }),
      node("promote", "registry", ["register"], { state: "skipped" }),
    ],
    jobs: [
      job("train-a", "trainer", [
        ["waiting", 0, 1],
        ["loading", 1, 8],
        ["running", 8, 50],
      ]),
      job("train-b", "trainer", [
        ["waiting", 0, 8],
        ["running", 8, 55],
      ]),
      job("merge", "merger", [["running", 55, 60]]),
      ...Array.from({ length: 12 }, (_, n) => {
        const from = 62 + (n % 6) * 5;
        return job("generate", "inference", [["running", from, from + 4.6]], n);
      }),
      ...Array.from({ length: 40 }, (_, n) =>
        job("check", "sandbox", [["running", 95 + n * 0.5, 95.4 + n * 0.5]], n),
      ),
    ],
    time: [
      { kind: "waiting", what: "", fromMs: at(0), toMs: at(1), behindJobId: null },
      { kind: "loading", what: "", fromMs: at(1), toMs: at(8), behindJobId: null },
      { kind: "running", what: "", fromMs: at(8), toMs: at(120), behindJobId: null },
    ],
    samples: Array.from({ length: 240 }, (_, n) => {
      const s = n / 2;
      const trains = s > 2 && s < 56;
      const writes = s > 60 && s < 96;
      const own = {
        trainer: trains ? 9_000 + 900 * Math.sin(s) : 0,
        inference: writes ? 14_000 : 0,
      };
      return {
        atMs: at(s),
        ram: { total: 32_000, used: 9_000 + s * 10 },
        instances: { trainer: trains ? 2_100 : 300, inference: writes ? 1_800 : 200, sandbox: 90 },
        gpus: [
          {
            index: 0,
            name: "RTX 4090",
            total: 24_564,
            used: 800 + own.trainer + own.inference,
            instances: own,
          },
        ],
      };
    }),
    losses: [
      {
        node: "train-a",
        training: curve(2.3, 0.1),
        evaluation: curve(2.2, 0.25).filter((_, n) => n % 12 === 0),
      },
      { node: "train-b", training: curve(2.6, 0.2), evaluation: [] },
    ],
    evaluations: [
      {
        node: "score",
        candidates: [
          candidate("base model", 0.02, 0),
          candidate("adapter-a", 0.82, 0.05),
          candidate("adapter-b", 0.03, 0.76),
          candidate("merged by ties", 0.74, 0.69),
          candidate(HOSTILE, 0.6, 0.55),
        ],
      },
    ],
    decisions: [
      {
        ts: "",
        node: "judge",
        kind: "promote",
        subject: "merged by ties",
        reason: "passes more held-out tasks than its best parent adapter-a",
        evidence: {
          difference: 0.28125,
          interval: [0.101234, 0.44],
          best_parent: { id: "adapter-a", pass_rate: 0.435 },
          tasks: [1, 2, 3, 4, 5, 6],
        },
      },
      { ts: "", node: "judge", kind: "prune", subject: HOSTILE, reason: "", evidence: undefined },
    ],
    results: [{ node: "promote", text: HOSTILE }],
    madeBy: "cjm-substrate 0.1.0",
  };
}
