import { expect, test } from "vitest";
import { newId } from "../../../src/util/ids.ts";

test("ids are UUIDs of version 7 that sort in the order in which they were made", () => {
  const ids = Array.from({ length: 20_000 }, newId);
  for (const id of ids) {
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/u);
  }
  expect(ids.toSorted()).toEqual(ids);
  expect(new Set(ids).size).toBe(ids.length);
});
