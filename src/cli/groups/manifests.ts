import { Option } from "commander";
import type { Frame, Options } from "../frame.ts";
import { JSON_OPTION } from "../frame.ts";

const HEADING = "Files:";

/** Writes and checks the files that describe capabilities. */
export function addManifestCommands(frame: Frame): void {
  addValidate(frame);
  addTypes(frame);
  addGenerators(frame);
}

function addValidate({ command, globals, finish }: Frame): void {
  command("validate", {
    summary: "Check a manifest, capabilities.yaml, cjm.yaml, composition or capability source",
    example: "validate capabilities.yaml",
    heading: HEADING,
  })
    .argument("<path>", "file, or folder of a capability's source")
    .addOption(
      new Option("-f, --format <format>", "what it is, when its name does not say").choices([
        "manifest",
        "capabilities_yaml",
        "source",
        "cjm_yaml",
        "composition",
      ]),
    )
    .option(...JSON_OPTION)
    .action(async (path: string, options: Options) => {
      const { validateCommand } = await import("../commands/validate.ts");
      await finish(validateCommand(path, { ...globals(), ...options }));
    });
}

function addTypes({ command, globals, finish }: Frame): void {
  command("types", {
    summary: "Write TypeScript types of the capabilities' actions for pipeline.bindings",
    example: "types --out src/capabilities.d.ts",
    heading: HEADING,
  })
    .option("-o, --out <path>", "file to write; without it the types are printed")
    .option("--only <name...>", "only these capabilities")
    .option(
      "--instance <id=capability...>",
      "an instance that is loaded under an id of its own (llm=inference)",
    )
    .option("--check", "write nothing; fail when the file is not what would be written")
    .action(async (options: Options) => {
      const { typesCommand } = await import("../commands/types.ts");
      await finish(typesCommand({ ...globals(), ...options }));
    });
}

function addGenerators({ command, globals, finish }: Frame): void {
  command("regenerate-manifest", {
    summary: "Ask an installed worker again what it is and write its manifest anew",
    example: "regenerate-manifest sandbox",
    heading: HEADING,
  })
    .argument("<capability>", "name in its manifest")
    .option("--capabilities <path>", "capabilities.yaml that names its package")
    .option("--package <spec>", "its package; wins over what the manifest or the file says")
    .option(...JSON_OPTION)
    .action(async (name: string, options: Options) => {
      const { regenerateManifestCommand } = await import("../commands/regenerate-manifest.ts");
      await finish(regenerateManifestCommand(name, { ...globals(), ...options }));
    });
  command("generate-adapter-manifest", {
    summary: "Describe a task adapter inside an installed environment",
    example: "generate-adapter-manifest whisper adapters:Fast",
    heading: HEADING,
  })
    .argument("<env-name>", "capability, or its environment's name")
    .argument("<target>", "the adapter's class, module:ClassName")
    .option(...JSON_OPTION)
    .action(async (name: string, target: string, options: Options) => {
      const { generateAdapterManifestCommand } =
        await import("../commands/generate-adapter-manifest.ts");
      await finish(generateAdapterManifestCommand(name, target, { ...globals(), ...options }));
    });
}
