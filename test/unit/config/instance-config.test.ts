import { describe, expect, test } from "vitest";
import { z } from "zod";
import { resolveInstanceConfig } from "../../../src/config/index.ts";

const schema = z.toJSONSchema(
  z.strictObject({
    model: z.string(),
    size: z.int().default(4),
    dtype: z.enum(["f16", "f32"]).default("f16"),
  }),
  { io: "input" },
);

describe("resolveInstanceConfig", () => {
  test("takes each key from explicit, then persisted, then the default", () => {
    expect(
      resolveInstanceConfig({
        schema,
        persisted: { model: "old", size: 8 },
        explicit: { model: "new" },
      }),
    ).toEqual({ config: { model: "new", size: 8, dtype: "f16" }, dropped: [], errors: [] });
  });

  test("drops unknown persisted keys and says which", () => {
    const { config, dropped, errors } = resolveInstanceConfig({
      schema,
      persisted: { model: "m", gone: 1 },
    });
    expect({ dropped, errors }).toEqual({ dropped: ["gone"], errors: [] });
    expect(config).not.toHaveProperty("gone");
  });

  test("names every unknown explicit key and every bad value at once", () => {
    const { errors } = resolveInstanceConfig({
      schema,
      explicit: { modell: "m", dtype: "f8", q: 1 },
    });
    expect(errors.map(({ key }) => key).sort()).toEqual(["dtype", "model", "modell", "q"]);
    expect(errors[0]?.message).toBe('unknown key; did you mean "model"?');
  });

  test("drops unknown explicit keys where it is not strict", () => {
    const result = resolveInstanceConfig({ schema, explicit: { model: "m", q: 1 }, strict: false });
    expect(result).toMatchObject({ dropped: ["q"], errors: [] });
  });

  test("accepts anything where no schema is known", () => {
    expect(resolveInstanceConfig({ schema: null, explicit: { a: 1 } }).config).toEqual({ a: 1 });
  });
});
