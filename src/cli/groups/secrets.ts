import { Option } from "commander";
import { type Frame, JSON_OPTION, type Options } from "../frame.ts";

const HEADING = "Authors and secrets:";

/** Values that workers get and nobody sees. */
export function addSecretCommands({ command, globals, finish }: Frame): void {
  command("set-secret", {
    summary: "Keep a secret for a capability's worker; asks for it unseen",
    example: "set-secret my-tool API_KEY --stdin < key.txt",
    heading: HEADING,
  })
    .argument("<capability>", "capability that declares it")
    .argument("<key>", "name of the variable the worker gets it in")
    .option("--stdin", "read the value from standard input")
    .option("--delete", "delete it instead")
    .option("--scope <scope>", "reserved for several users; the default is the one user")
    .addOption(new Option("--value <value>").hideHelp())
    .option(...JSON_OPTION)
    .action(async (capability: string, key: string, options: Options) => {
      const { setSecretCommand } = await import("../commands/set-secret.ts");
      await finish(setSecretCommand(capability, key, { ...globals(), ...options }));
    });
  command("list-secrets", {
    summary: "Show which secrets are kept and which are missing, never a value",
    example: "list-secrets my-tool",
    heading: HEADING,
  })
    .argument("[capability]", "only of this capability")
    .option("--scope <scope>", "reserved for several users; the default is the one user")
    .option(...JSON_OPTION)
    .action(async (capability: string | undefined, options: Options) => {
      const { listSecretsCommand } = await import("../commands/list-secrets.ts");
      await finish(listSecretsCommand(capability, { ...globals(), ...options }));
    });
}
