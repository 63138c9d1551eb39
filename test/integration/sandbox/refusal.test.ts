import { afterEach, expect, test, vi } from "vitest";
import { Bench } from "./support.ts";

afterEach(() => vi.unstubAllEnvs());

test("refuses untrusted code and says why when there is no isolation", async () => {
  vi.stubEnv("PATH", "/nonexistent");
  await using bench = await Bench.open();

  const running = bench.run({ code: "print(1)" });

  const error: unknown = await running.catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "ISOLATION_UNAVAILABLE" });
  expect(String(error)).toContain('bubblewrap: no "bwrap" on PATH');
});
