import type { Command } from "commander";
import type { GlobalOptions } from "./context.ts";

type Options = Record<string, never>;
type Globals = () => GlobalOptions;
type Finish = (outcome: Promise<number>) => Promise<void>;

/** The commands that look after environments, `install-all` apart. */
export function addEnvironmentCommands(program: Command, globals: Globals, finish: Finish): void {
  addSetupCommands(program, globals, finish);
  addManifestCommands(program, globals, finish);
}

function addSetupCommands(program: Command, globals: Globals, finish: Finish): void {
  program
    .command("setup-runtime")
    .description("Download micromamba for the project, checked against its pinned checksum")
    .option("-f, --force", "download although it is there")
    .option("--mirror <url>", "folder of the release on another server ($CJM_MICROMAMBA_MIRROR)")
    .option("--file <path>", "a binary of this machine instead of a download")
    .option("--sha256 <hex>", "checksum of another version than the pinned one")
    .option("--json", "print one JSON document")
    .addHelpText(
      "after",
      "\nExample:\n  $ cjm-ctl setup-runtime --mirror https://mirror.example/mm",
    )
    .action(async (options: Options) => {
      const { setupRuntimeCommand } = await import("./commands/setup-runtime.ts");
      await finish(setupRuntimeCommand({ ...globals(), ...options }));
    });
  program
    .command("setup-host")
    .description("Add the npm packages under interface_libs to the host's project")
    .option("--capabilities <path>", "capabilities.yaml to use")
    .option("-y, --yes", "do not ask")
    .option("--json", "print one JSON document")
    .addHelpText("after", "\nExample:\n  $ cjm-ctl setup-host --yes")
    .action(async (options: Options) => {
      const { setupHostCommand } = await import("./commands/setup-host.ts");
      await finish(setupHostCommand({ ...globals(), ...options }));
    });
}

function addManifestCommands(program: Command, globals: Globals, finish: Finish): void {
  program
    .command("regenerate-manifest")
    .description("Ask an installed worker again what it is and write its manifest anew")
    .argument("<capability>", "name in its manifest")
    .option("--capabilities <path>", "capabilities.yaml that names its package")
    .option("--package <spec>", "its package, where neither says it")
    .option("--json", "print one JSON document")
    .addHelpText("after", "\nExample:\n  $ cjm-ctl regenerate-manifest sandbox")
    .action(async (name: string, options: Options) => {
      const { regenerateManifestCommand } = await import("./commands/regenerate-manifest.ts");
      await finish(regenerateManifestCommand(name, { ...globals(), ...options }));
    });
  program
    .command("generate-adapter-manifest")
    .description("Describe a task adapter inside an installed environment")
    .argument("<env-name>", "capability, or its environment's name")
    .argument("<target>", "the adapter's class, module:ClassName")
    .option("--json", "print one JSON document")
    .addHelpText("after", "\nExample:\n  $ cjm-ctl generate-adapter-manifest whisper adapters:Fast")
    .action(async (name: string, target: string, options: Options) => {
      const { generateAdapterManifestCommand } =
        await import("./commands/generate-adapter-manifest.ts");
      await finish(generateAdapterManifestCommand(name, target, { ...globals(), ...options }));
    });
  program
    .command("remove")
    .description("Remove a capability's manifest and its environment")
    .argument("<capability>", "name in its manifest")
    .option(
      "--capabilities <path>",
      "accepted as in the original; the manifest names the environment",
    )
    .option("--keep-env", "keep the environment")
    .option("-y, --yes", "do not ask")
    .option("--json", "print one JSON document")
    .addHelpText("after", "\nExample:\n  $ cjm-ctl remove whisper --keep-env")
    .action(async (name: string, options: Options) => {
      const { removeCommand } = await import("./commands/remove.ts");
      await finish(removeCommand(name, { ...globals(), ...options }));
    });
}
