import { describe, expect, test } from "vitest";
import { attributeGpu, type AttributionContext } from "../../../src/telemetry/attribution.ts";
import { DeltaLedger } from "../../../src/telemetry/delta-ledger.ts";
import type { GpuState } from "../../../src/telemetry/gpu-sample.ts";
import { RingBuffer } from "../../../src/telemetry/ring-buffer.ts";
import { GIB, MIB } from "./support.ts";

function gpu(
  processes: readonly (readonly [pid: number, bytes: number | null])[] | null,
): GpuState {
  return {
    uuid: "GPU-a",
    index: 0,
    lost: false,
    memory_used_bytes: 10 * GIB,
    processes: processes?.map(([pid, memory_bytes]) => ({ pid, memory_bytes })),
  };
}

/** Two caged workers: 100 > 110 is [2] inside, 200 > 210 is [2, 3] inside. */
function context(rest: Partial<AttributionContext> = {}): AttributionContext {
  const parents = new Map([
    [100, 50],
    [110, 100],
    [111, 110],
    [200, 50],
    [210, 200],
    [300, 1],
    [301, 1],
  ]);
  return {
    trees: [
      {
        instanceId: "a",
        rootPid: 100,
        pids: new Set([100, 110]),
        innerPids: new Set([100, 2]),
        cgroup: "/cjm/a",
      },
      {
        instanceId: "b",
        rootPid: 200,
        pids: new Set([200, 210]),
        innerPids: new Set([200, 2, 3]),
        cgroup: null,
      },
    ],
    isOurNamespace: true,
    parent: (pid) => parents.get(pid),
    cgroup: (pid) => (pid === 300 ? "/cjm/a" : "/"),
    ...rest,
  };
}

describe("attributeGpu", () => {
  test("matches a pid of the tree, and one that was born since the last look by its parents", () => {
    const answer = attributeGpu(
      gpu([
        [110, GIB],
        [111, 2 * GIB],
        [210, 3 * GIB],
      ]),
      context(),
    );
    expect([...answer.instances]).toEqual([
      ["a", { bytes: 3 * GIB, method: "pid", confidence: 1 }],
      ["b", { bytes: 3 * GIB, method: "pid", confidence: 1 }],
    ]);
    expect(answer).toMatchObject({
      foreignBytes: 0,
      residualBytes: 4 * GIB,
      isIncomplete: false,
    });
  });

  test("gives a daemon that left its tree to the tree of its control group", () => {
    const answer = attributeGpu(
      gpu([
        [300, GIB],
        [110, GIB],
      ]),
      context(),
    );
    expect(answer.instances.get("a")).toEqual({
      bytes: 2 * GIB,
      method: "cgroup",
      confidence: 0.8,
    });
  });

  test("calls a visible process that is nobody's foreign", () => {
    expect(attributeGpu(gpu([[301, 5 * GIB]]), context())).toMatchObject({
      foreignBytes: 5 * GIB,
      isIncomplete: false,
    });
  });

  test("matches numbers of another PID namespace only where one tree has them", () => {
    const other = context({ isOurNamespace: false });
    const answer = attributeGpu(
      gpu([
        [3, GIB],
        [2, 2 * GIB],
        [300, GIB],
      ]),
      other,
    );
    expect([...answer.instances]).toEqual([
      ["b", { bytes: GIB, method: "nspid", confidence: 0.9 }],
    ]);
    // 2 is in both trees, and 300 names nobody there: unknown holders, so nothing is called foreign.
    expect(answer).toMatchObject({ foreignBytes: 0, residualBytes: 9 * GIB, isIncomplete: true });
  });

  test("takes a holder whose size is not told as unknown, never as 0", () => {
    const answer = attributeGpu(gpu([[110, null]]), context());
    expect(answer).toMatchObject({ residualBytes: 10 * GIB, isIncomplete: true });
    expect(answer.instances.size).toBe(0);
  });

  test("knows nothing of anybody where the device names no processes", () => {
    expect(attributeGpu(gpu(null), context())).toMatchObject({
      foreignBytes: null,
      isIncomplete: true,
    });
  });
});

describe("DeltaLedger", () => {
  test("gives changes to the one active instance, and to none of two", () => {
    const ledger = new DeltaLedger();
    ledger.observe(2 * GIB, []);
    ledger.observe(5 * GIB, ["a"]);
    ledger.observe(9 * GIB, ["a", "b"]);
    ledger.observe(10 * GIB, ["b"]);
    expect([ledger.heldBy("a"), ledger.heldBy("b")]).toEqual([3 * GIB, GIB]);
  });

  test("calls what is below the noise floor nothing", () => {
    const ledger = new DeltaLedger();
    ledger.observe(0, ["a"]);
    ledger.observe(31 * MIB, ["a"]);
    expect(ledger.heldBy("a")).toBe(0);
    ledger.observe(33 * MIB, ["a"]);
    expect(ledger.heldBy("a")).toBe(33 * MIB);
  });

  test("never goes below nothing", () => {
    const ledger = new DeltaLedger();
    ledger.observe(5 * GIB, ["a"]);
    ledger.observe(GIB, ["a"]);
    ledger.observe(2 * GIB, ["a"]);
    expect(ledger.heldBy("a")).toBe(GIB);
  });
});

test("a ring buffer keeps the newest, in order, and counts what it dropped", () => {
  const ring = new RingBuffer<number>(3);
  expect(ring.toArray()).toEqual([]);
  for (const item of [1, 2, 3, 4, 5]) ring.push(item);
  expect(ring.toArray()).toEqual([3, 4, 5]);
  expect(ring.dropped).toBe(2);
  expect(() => new RingBuffer(0)).toThrow(TypeError);
});
