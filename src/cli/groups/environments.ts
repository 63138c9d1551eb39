import type { Frame, Options } from "../frame.ts";
import { JSON_OPTION } from "../frame.ts";

const HEADING = "Environments:";
const CAPABILITIES = [
  "--capabilities <path>",
  "capabilities.yaml to use (default: capabilities_config of cjm.yaml)",
] as const;

/** Builds, lists and removes the environments that capabilities run in. */
export function addEnvironmentCommands(frame: Frame): void {
  addInstallAll(frame);
  addList(frame);
  addRemove(frame);
  addSetup(frame);
}

function addInstallAll({ command, globals, finish }: Frame): void {
  command("install-all", {
    summary: "Build every environment of capabilities.yaml and register its capability",
    example: "install-all --only sandbox",
    heading: HEADING,
  })
    .option(...CAPABILITIES)
    .option(
      "--substrate-source <spec>",
      "SDK for Python environments: a pip spec, a path or '-e <path>' (default: the SDK in this package; cjm-substrate for packages of the original)",
    )
    .option("--force", "build environments anew")
    .option("--no-force", "build only what has changed (the default)")
    .option("--only <name...>", "only these capabilities")
    .option(...JSON_OPTION)
    .action(async (options: Options) => {
      const { installAllCommand } = await import("../commands/install-all.ts");
      await finish(installAllCommand({ ...globals(), ...options }));
    });
}

function addList({ command, globals, finish }: Frame): void {
  command("list", {
    summary: "List the capabilities there are, installed or shipped",
    example: "list --envs",
    heading: HEADING,
  })
    .option("--capabilities <path>", "capabilities.yaml to compare with")
    .option("-e, --envs", "compare each environment with capabilities.yaml")
    .option(...JSON_OPTION)
    .action(async (options: Options) => {
      const { listCommand } = await import("../commands/list.ts");
      await finish(listCommand({ ...globals(), ...options }));
    });
}

function addRemove({ command, globals, finish }: Frame): void {
  command("remove", {
    summary: "Remove a capability's manifest and its environment",
    example: "remove whisper --keep-env",
    heading: HEADING,
  })
    .argument("<capability>", "name in its manifest")
    .option(
      "--capabilities <path>",
      "accepted as in the original; the manifest names the environment",
    )
    .option("--keep-env", "keep the environment")
    .option("-y, --yes", "do not ask")
    .option(...JSON_OPTION)
    .action(async (name: string, options: Options) => {
      const { removeCommand } = await import("../commands/remove.ts");
      await finish(removeCommand(name, { ...globals(), ...options }));
    });
}

function addSetup({ command, globals, finish }: Frame): void {
  command("setup-runtime", {
    summary: "Download micromamba for the project, checked against its pinned checksum",
    example: "setup-runtime --mirror https://mirror.example/mm",
    heading: HEADING,
  })
    .option("-f, --force", "download although it is there")
    .option("--mirror <url>", "folder of the release on another server ($CJM_MICROMAMBA_MIRROR)")
    .option("--file <path>", "a binary of this machine instead of a download")
    .option("--sha256 <hex>", "checksum of another version than the pinned one")
    .option(...JSON_OPTION)
    .action(async (options: Options) => {
      const { setupRuntimeCommand } = await import("../commands/setup-runtime.ts");
      await finish(setupRuntimeCommand({ ...globals(), ...options }));
    });
  command("setup-host", {
    summary: "Add the npm packages under interface_libs to the host's project",
    example: "setup-host --yes",
    heading: HEADING,
  })
    .option(...CAPABILITIES)
    .option("-y, --yes", "do not ask")
    .option(...JSON_OPTION)
    .action(async (options: Options) => {
      const { setupHostCommand } = await import("../commands/setup-host.ts");
      await finish(setupHostCommand({ ...globals(), ...options }));
    });
}
