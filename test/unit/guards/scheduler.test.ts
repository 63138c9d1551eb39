import { expect, test } from "vitest";
import { drive } from "../scheduler/support.ts";
import { Looks } from "./counting.ts";

const CLASSES = 8;

/** What the scheduler looks at when a job ends and the next one starts, with `pending` waiting. */
function looksOfOneEnd(pending: number): number {
  const driver = drive({ maxLanes: 2, admission: "permissive" });
  for (let n = 0; n < CLASSES; n += 1) driver.ready(`i${n}`, { maxConcurrent: 2 });
  for (let n = 0; n < pending + 2; n += 1) {
    driver.submit(`job-${n}`, { instanceId: `i${n % CLASSES}` });
  }
  const looks = new Looks();
  looks.watch(driver.state);
  const [started] = driver.finish("job-0");
  expect(started).toMatchObject({ type: "admit", jobId: "job-2" });
  return looks.count;
}

test("a step looks at as much, whether a hundred jobs wait or ten thousand", () => {
  const few = looksOfOneEnd(100);
  expect(few).toBeGreaterThan(CLASSES);
  // A heap of each class is about seven levels higher.
  expect(looksOfOneEnd(10_000)).toBeLessThan(few + 64);
});
