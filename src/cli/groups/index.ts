import type { Group } from "../frame.ts";
import { addAdapterCommands } from "./adapters.ts";
import { addAuthorCommands } from "./author.ts";
import { addEnvironmentCommands } from "./environments.ts";
import { addLookCommands } from "./look.ts";
import { addManifestCommands } from "./manifests.ts";
import { addRunCommands } from "./run.ts";
import { addSecretCommands } from "./secrets.ts";
import { addShellCommands } from "./shell.ts";

/** Every group, in the order of the help. */
export const GROUPS: readonly Group[] = [
  addEnvironmentCommands,
  addManifestCommands,
  addRunCommands,
  addLookCommands,
  addAdapterCommands,
  addAuthorCommands,
  addSecretCommands,
  addShellCommands,
];
