import type { Group } from "../frame.ts";
import { addEnvironmentCommands } from "./environments.ts";
import { addLookCommands } from "./look.ts";
import { addManifestCommands } from "./manifests.ts";
import { addRunCommands } from "./run.ts";
import { addShellCommands } from "./shell.ts";

/** Every group, in the order of the help. */
export const GROUPS: readonly Group[] = [
  addEnvironmentCommands,
  addManifestCommands,
  addRunCommands,
  addLookCommands,
  addShellCommands,
];
