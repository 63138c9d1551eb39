import { describe, expect, test } from "vitest";
import { z } from "zod";
import { capabilitiesFileSchema, checkYaml, parseYaml } from "../../../src/config/index.ts";

const messageOf = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return "";
};

describe("parseYaml", () => {
  test("names every line with bad syntax", () => {
    const message = messageOf(() => parseYaml("a: 1\na: 2\nb: [1, 2\nc: }\n", "x.yaml"));
    expect(message).toContain("x.yaml:2:1: ");
    expect(message.split("\n").length).toBeGreaterThan(1);
  });

  test("refuses a file whose aliases grow without end", () => {
    const lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"];
    for (let i = 1; i < 9; i += 1) {
      lines.push(`a${i}: &a${i} [${Array.from({ length: 10 }, () => `*a${i - 1}`).join(", ")}]`);
    }
    expect(messageOf(() => parseYaml(lines.join("\n"), "x.yaml"))).toContain("alias count");
  });

  test("refuses nesting too deep to read, and does not crash", () => {
    expect(messageOf(() => parseYaml("[".repeat(20_000), "deep.yaml"))).toContain("deep.yaml");
  });

  test("points at the item of a list and at the holder of a missing key", () => {
    const source = parseYaml("nodes:\n  - name: a\n  - names: b\n", "c.yaml");
    const schema = z.strictObject({ nodes: z.array(z.object({ name: z.string() })) });
    expect(messageOf(() => checkYaml(source, schema))).toBe(
      "c.yaml:3:5: nodes[1].name: expected string, received undefined",
    );
  });
});

describe("capabilities.yaml", () => {
  test("accepts an entry of the original as it is", () => {
    const text = `capabilities:
  - name: whisper
    env_name: cjm-whisper
    package: git+https://example.org/whisper.git
    python_version: 3.12
    interface_libs: [cjm-media-interface]
    adapters:
      - lib: cjm-transcribe-adapter
        impl: cjm_transcribe.adapter:Transcribe
  - name: heavy
    env_name: heavy
    package: heavy-tool
    env_file: heavy.yml
    interface_libs:
`;
    const { capabilities } = checkYaml(
      parseYaml(text, "capabilities.yaml"),
      capabilitiesFileSchema,
    );
    expect(capabilities[0]).toMatchObject({
      python_version: "3.12",
      adapters: [{ lib: "cjm-transcribe-adapter" }],
    });
    expect(capabilities[1]).toMatchObject({ interface_libs: [], env_file: "heavy.yml" });
  });

  test("names every bad entry at once", () => {
    const text =
      "capabilities:\n  - name: a b\n    package: x\n  - name: c\n  - name: d\n    path: .\n    env: docker\n  - name: d\n    path: .\n";
    const message = messageOf(() => checkYaml(parseYaml(text, "c.yaml"), capabilitiesFileSchema));
    expect(message).toContain("c.yaml:2:5: capabilities[0].name: letters, digits");
    expect(message).toContain("c.yaml:4:5: capabilities[1]: `package` or `path` is required");
    expect(message).toContain("c.yaml:7:5: capabilities[2].env: ");
  });
});
