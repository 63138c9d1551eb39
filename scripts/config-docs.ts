// Writes docs/configuration.md from the schemas. With --check it fails when the file is stale.
import { format, resolveConfig } from "prettier";
import { z } from "zod";
import { capabilityEntrySchema, configKeys } from "../src/config/index.ts";
import { isRecord } from "../src/util/record.ts";
import { writeGenerated } from "./generated.ts";

const PATH = "docs/configuration.md";

const INTRODUCTION = `# Configuration

Generated from the schemas by \`npm run generate\`; edit those.

A project is a folder with a \`cjm.yaml\`. It is found upwards from the working directory; the paths in
it are relative to it. Each key is resolved in this order: a flag of the command line, an environment
variable, \`cjm.yaml\`, the default. Lists in a variable are separated by commas, a map is JSON.
A file with mistakes is refused with all of them at once, each with its line and key.

## cjm.yaml
`;

const CAPABILITIES = `
## capabilities.yaml

What \`cjm-ctl install-all\` installs: a list under \`capabilities\`, one entry for each. Paths are
relative to the file. Keys that are not in this table are ignored. An entry written for the Python
original works unchanged. How environments are made is in [environments](environments.md).
`;

function typeOf(schema: Readonly<Record<string, unknown>>): string {
  const options = schema["enum"];
  if (Array.isArray(options)) return options.map((option) => `\`${String(option)}\``).join(", ");
  const alternatives = schema["anyOf"];
  if (Array.isArray(alternatives)) {
    const names = alternatives.filter(isRecord).map(typeOf);
    return [...new Set(names)].filter((name) => name !== "null").join(" or ");
  }
  const { type } = schema;
  if (type === "array") return "list";
  if (type === "object") return "map";
  return typeof type === "string" ? type : "any";
}

function defaultOf(schema: Readonly<Record<string, unknown>>): string {
  return "default" in schema ? `\`${JSON.stringify(schema["default"])}\`` : "";
}

function descriptionOf(schema: Readonly<Record<string, unknown>>): string {
  const { description } = schema;
  return typeof description === "string" ? description : "";
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n");
}

const keys = configKeys().map(({ key, variables, schema }) => [
  `\`${key}\``,
  typeOf(schema),
  defaultOf(schema),
  variables.map((variable) => `\`${variable}\``).join(", "),
  descriptionOf(schema),
]);

const entry = z.toJSONSchema(capabilityEntrySchema, { io: "input" });
const properties = Object.entries(isRecord(entry.properties) ? entry.properties : {});
const entries = properties.map(([key, schema]) => {
  const shape = isRecord(schema) ? schema : {};
  return [`\`${key}\``, typeOf(shape), descriptionOf(shape)];
});

const markdown = [
  INTRODUCTION,
  table(["key", "type", "default", "variable", "meaning"], keys),
  CAPABILITIES,
  table(["key", "type", "meaning"], entries),
].join("\n");

const style = await resolveConfig(PATH, { editorconfig: false });
await writeGenerated([
  { path: PATH, content: await format(markdown, { ...style, filepath: PATH }) },
]);
