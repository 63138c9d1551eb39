import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CjmError } from "../../../src/errors/index.ts";
import type { WorkerConnection } from "../../../src/process/index.ts";
import { ENDING_CASES, ENDLESS_CASES } from "../../chaos/hostile/hostile-worker.ts";
import {
  outcome,
  startHostile,
  stillAnswers,
  streamOutcome,
} from "../../chaos/hostile/over-sockets.ts";
import { Workbench } from "../process/support.ts";

let bench: Workbench;
let connection: WorkerConnection;
beforeAll(async () => {
  bench = await Workbench.create();
  connection = await startHostile(bench);
});
afterAll(async () => {
  await connection.kill();
  await bench[Symbol.asyncDispose]();
});

const REFUSED = ["RESPONSE_INVALID", "RESPONSE_TOO_LARGE"];
/** What is harmless as it is taken: a member that is only a member, an answer before the excess. */
const MAY_BE_A_VALUE = new Set([
  "a member named __proto__",
  "two answers to one question",
  "body longer than said",
]);

describe("a worker's answer over its socket", () => {
  test.concurrent.for(ENDING_CASES)(
    "%s: one typed error, and the worker is reached as before",
    async (name, { expect }) => {
      const expected = MAY_BE_A_VALUE.has(name) ? [...REFUSED, "value"] : REFUSED;
      expect(expected).toContain(await outcome(connection, { case: name }));
      const streamed = await streamOutcome(connection, { case: name });
      expect([...expected, "nothing", "value"]).toContain(streamed);
      expect(await stillAnswers(connection)).toBe(true);
      expect("polluted" in {}).toBe(false);
    },
  );

  test.concurrent.for(ENDLESS_CASES)(
    "%s: ends when the caller says so",
    async (name, { expect }) => {
      const stop = new AbortController();
      const pending = outcome(connection, { case: name }, stop.signal);
      expect(await stillAnswers(connection)).toBe(true);
      stop.abort(new CjmError("CAPABILITY_TIMEOUT", "its time is over"));
      expect(await pending).toBe("CAPABILITY_TIMEOUT");
    },
  );

  test("mutated at random: typed errors or values", async () => {
    const seeds = Array.from({ length: 200 }, (_, seed) => seed);
    const codes = await Promise.all(
      seeds.map((seed) => outcome(connection, { case: "mutated", seed })),
    );
    expect(codes.filter((code) => code === "RESPONSE_INVALID").length).toBeGreaterThan(20);
    expect(codes).not.toContain("WORKER_EXITED");
    expect(await stillAnswers(connection)).toBe(true);
  });
});
