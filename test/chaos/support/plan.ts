/** What a long run does, in parts that come one after another. */
export const PLAN = {
  load: { share: 0.4, does: "mixed jobs on eight lanes" },
  orphans: { share: 0.25, does: "1,000 kills, one host at a time" },
  faults: { share: 0.1, does: "faults at commits of the queue's reference work" },
  "install-all": { share: 0.06, does: "up to 50 killed installations" },
  "model-factory": { share: 0.1, does: "kills of the factory; installs its environments first" },
  "queue-crash": { share: 0.05, does: "up to 200 kills of the reference work" },
} as const;

export type Part = keyof typeof PLAN;

/** Parts that end when their count is reached, however long that takes. */
export const COUNTED = [
  "hostile: 1,000,000 inputs in process, 10,000 answers over a socket, every flood",
  "faults: 5,000 damaged journals",
  "sandbox: 1,000 runs and 20 of every escape, where there is a backend",
  "qlora-trainer: 20 killed trainings; installs its environment first",
] as const;

/** The plan as lines of text. */
export function describePlan(minutes: number): string {
  const timed = Object.entries(PLAN).map(([part, { share, does }]) => {
    const most = (minutes * share).toFixed(1).padStart(6);
    return `  at most ${most} minutes  ${part}: ${does}`;
  });
  return [...timed, ...COUNTED.map((what) => `  until it is done        ${what}`)].join("\n");
}
