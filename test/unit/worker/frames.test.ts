import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  BodyScanner,
  FRAME_MAX_BYTES,
  workerFrameSchema,
  type WorkerFrameInput,
} from "../../../src/protocol/index.ts";
import { frameLine } from "../../../src/worker/frame-line.ts";
import { ProgressReports } from "../../../src/worker/progress.ts";

describe("a frame's line", () => {
  it("is the frame where it fits", () => {
    const frame: WorkerFrameInput = { type: "usage", job_id: "j", units: { tokens: 1 } };
    expect(frameLine(frame)).toBe(`${JSON.stringify(frame)}\n`);
  });

  it("has its text cut to the limit, and says so, whatever the text is made of", () => {
    const pieces = fc.constantFrom("a", "\u0000", "é", "😀", "\ud800", '"');
    fc.assert(
      fc.property(pieces, pieces, fc.integer({ min: 1, max: 90_000 }), (a, b, length) => {
        const message = (a + b).repeat(length);
        const line = frameLine({ type: "log", ts: "now", level: "info", message, exc: message });
        expect(Buffer.byteLength(line)).toBeLessThanOrEqual(FRAME_MAX_BYTES);
        const frame = workerFrameSchema.parse(JSON.parse(line));
        if (frame.type !== "log" || frame.message === message.toWellFormed()) return;
        if (frame.message !== message) expect(frame.message).toMatch(/\[cut: \d+ characters\]$/u);
      }),
      { numRuns: 30 },
    );
  });

  it("refuses an account that carries content", () => {
    const payload = { text: "x".repeat(FRAME_MAX_BYTES) };
    expect(() => frameLine({ type: "account", event_type: "e", payload })).toThrow(
      /references and hashes/u,
    );
  });
});

describe("progress frames", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("are at most ten in a second of one job, the last one wins, the end is always sent", () => {
    const sent: { at: number; progress: number; job: string }[] = [];
    const start = Date.now();
    const reports = new ProgressReports({
      send(frame) {
        if (frame.type !== "progress") return;
        sent.push({ at: Date.now() - start, progress: frame.progress, job: frame.job_id ?? "" });
      },
    });
    for (let step = 0; step < 300; step += 1) {
      reports.report("a", step / 300, "");
      if (step % 100 === 0) reports.report("b", step / 300, "");
      vi.advanceTimersByTime(10);
    }
    reports.report("a", 1, "done");
    reports.finish("a");
    const ofA = sent.filter(({ job }) => job === "a");
    for (const { at } of ofA) {
      const within = ofA.filter((frame) => frame.at >= at && frame.at < at + 1000);
      expect(within.length).toBeLessThanOrEqual(10);
    }
    expect(ofA.at(-1)?.progress).toBe(1);
    expect(sent.filter(({ job }) => job === "b")).toHaveLength(3);
    expect(reports.latest()).toEqual({ progress: 1, message: "done" });
    expect(reports.latest("a")).toEqual({ progress: 0, message: "" });
  });

  it("are between 0 and 1, or -1 for unknown", () => {
    const reports = new ProgressReports({ send: () => undefined });
    for (const [given, seen] of [
      [-5, -1],
      [2, 1],
      [Number.NaN, -1],
      [0.5, 0.5],
    ] as const) {
      reports.report("j", given, "");
      expect(reports.latest("j").progress).toBe(seen);
    }
  });
});

describe("the scanner of bodies", () => {
  const scan = (text: string, limits: ConstructorParameters<typeof BodyScanner>[0], size = 3) => {
    const scanner = new BodyScanner(limits);
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += size) {
      const excess = scanner.push(bytes.subarray(at, at + size));
      if (excess !== undefined) return excess;
    }
    return undefined;
  };
  const unlimited = { bytes: Infinity, depth: Infinity, values: Infinity };

  function measure(value: unknown): { depth: number; values: number } {
    if (typeof value !== "object" || value === null) return { depth: 0, values: 1 };
    const members = Object.values(value).map(measure);
    return {
      depth: 1 + Math.max(0, ...members.map(({ depth }) => depth)),
      values: 1 + members.reduce((sum, { values }) => sum + values, 0),
    };
  }

  it("counts depth and values of any JSON exactly, however it is cut into chunks", () => {
    fc.assert(
      fc.property(
        fc.jsonValue(),
        fc.integer({ min: 1, max: 9 }),
        fc.boolean(),
        (value, size, spaced) => {
          const text = JSON.stringify(value, null, spaced ? 2 : 0);
          const { depth, values } = measure(value);
          expect(scan(text, { ...unlimited, depth, values }, size)).toBeUndefined();
          expect(scan(text, { ...unlimited, values: values - 1 }, size)).toMatch(/values/u);
          if (depth > 0) {
            expect(scan(text, { ...unlimited, depth: depth - 1 }, size)).toMatch(/levels/u);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it("counts bytes before anything else", () => {
    expect(scan("x".repeat(11), { ...unlimited, bytes: 10 })).toBe("more than 10 bytes");
  });

  it("takes what is no JSON without harm", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        scan(text, undefined);
      }),
    );
    expect(scan("]]]}}}[", { ...unlimited, depth: 1 })).toBeUndefined();
  });
});
