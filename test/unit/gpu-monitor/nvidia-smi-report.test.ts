import { describe, expect, test } from "vitest";
import { gpuSchema } from "../../../workers/gpu-monitor/model.ts";
import { ReportSplitter } from "../../../workers/gpu-monitor/sources/nvidia-smi.ts";
import { parseSmiReport } from "../../../workers/gpu-monitor/sources/nvidia-smi-report.ts";
import { CORPUS } from "../../fixtures/gpu/corpus.ts";

describe("nvidia-smi's report", () => {
  test("the corpus has at least forty outputs, each named once", () => {
    expect(new Set(CORPUS.map(({ name }) => name)).size).toBe(CORPUS.length);
    expect(CORPUS.length).toBeGreaterThanOrEqual(40);
  });

  test.for(CORPUS)("of $name", ({ output, first, why, all, refused }) => {
    const report = parseSmiReport(output);
    if (typeof report === "string") {
      expect(report).toContain(refused ?? "(it should have been read)");
      return;
    }
    expect(refused).toBeUndefined();
    for (const gpu of report.gpus) gpuSchema.parse(gpu);
    if (all !== undefined) {
      expect(report.gpus).toHaveLength(all.length);
      expect(report.gpus).toMatchObject(all);
    }
    if (first !== undefined) expect(report.gpus[0]).toMatchObject(first);
    if (why !== undefined) expect(report.gpus[0]?.unavailable).toMatchObject(why);
    for (const gpu of report.gpus) {
      const nulls = Object.entries(gpu).filter(([, value]) => value === null);
      const unexplained = nulls.filter(([key]) => key !== "parent_uuid" && !gpu.unavailable[key]);
      expect(unexplained).toEqual([]);
    }
  });
});

describe("a stream of reports", () => {
  test("is cut into documents wherever the chunks break", () => {
    const report = CORPUS[0]?.output ?? "";
    const stream = report + report + report.slice(0, 100);
    for (const size of [1, 7, 4096]) {
      const splitter = new ReportSplitter();
      const found: string[] = [];
      for (let at = 0; at < stream.length; at += size) {
        found.push(...splitter.push(stream.slice(at, at + size)));
      }
      expect(found.map((document) => typeof parseSmiReport(document))).toEqual([
        "object",
        "object",
      ]);
      expect(splitter.rest.trim()).toBe(report.slice(0, 100).trim());
    }
  });

  test("without an end is dropped, not collected for ever", () => {
    const splitter = new ReportSplitter();
    const line = "<a>".repeat(100_000);
    for (let index = 0; index < 40; index += 1) expect(splitter.push(line)).toEqual([]);
    expect(splitter.rest.length).toBeLessThan(8 * 1024 * 1024);
  });
});

/** Mulberry32: the same garbage every time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("no garbage makes the parser throw or answer what its schema forbids", () => {
  const wantedLines = Number(process.env["FUZZ_LINES"] ?? 1_000_000);
  const next = random(20_250_304);
  const pick = <Item>(items: readonly Item[], fallback: Item): Item =>
    items[Math.floor(next() * items.length)] ?? fallback;
  const documents = CORPUS.map(({ output }) => output.split("\n"));
  const scraps = [
    "",
    "<",
    ">",
    "</gpu>",
    "<gpu>",
    "\0",
    "99999999999999999999 MiB",
    "-1 MiB",
    "NaN",
  ];
  let lines = 0;
  let read = 0;
  while (lines < wantedLines) {
    const document = [...pick(documents, [])];
    const changes = 1 + Math.floor(next() * 4);
    for (let change = 0; change < changes; change += 1) {
      const at = Math.floor(next() * document.length);
      const line = document[at] ?? "";
      const cut = Math.floor(next() * line.length);
      document[at] = pick(
        [
          line.slice(0, cut),
          line.slice(0, cut) + pick(scraps, "") + line.slice(cut + 1),
          pick(pick(documents, []), ""),
          `${line}\n${line}`,
          line.replace(/\d+/u, String(Math.floor(next() * 2 ** 53))),
        ],
        "",
      );
    }
    lines += document.length;
    const report = parseSmiReport(document.join("\n"));
    if (typeof report === "string") continue;
    read += 1;
    // Checking each against the schema would take longer than reading it.
    if (read % 50 === 0) for (const gpu of report.gpus) gpuSchema.parse(gpu);
  }
  // Garbage that is refused whole proves little about the fields.
  expect(read).toBeGreaterThan(wantedLines / 1000);
});
