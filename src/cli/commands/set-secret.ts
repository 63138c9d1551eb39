import { DoorClient } from "../../door/index.ts";
import { CjmError } from "../../errors/index.ts";
import { readHostInfo, SecretStore } from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { print, printError, printJson } from "../terminal.ts";

export interface SetSecretOptions extends GlobalOptions {
  readonly stdin?: boolean;
  readonly value?: string;
  readonly delete?: boolean;
  readonly json?: boolean;
}

const MAX_BYTES = 64 * 1024;
const CTRL_C = "\u0003";
const END_OF_LINE: ReadonlySet<string> = new Set(["\r", "\n", "\u0004"]);
const BACKSPACE = /[\b\u007f]/u;

/**
 * Keeps or deletes a secret; a live host gives its running workers the new one.
 *
 * @throws {CjmError} `SECRET_INVALID` for a value on the command line, where every process can read
 *   it, for one that is too short, and for a secrets file that is not whole or not private.
 */
export async function setSecretCommand(
  capability: string,
  key: string,
  options: SetSecretOptions,
): Promise<number> {
  if (options.value !== undefined) {
    throw new CjmError(
      "SECRET_INVALID",
      "--value would show the secret to every process and keep it in the shell's history; " +
        "leave it out to be asked, or give it with --stdin",
    );
  }
  const { dataDir } = await configOf(options);
  const secrets = new SecretStore(dataDir);
  const address = { capability, key };
  const changed =
    options.delete === true
      ? await secrets.delete(address)
      : await secrets.set(address, await askValue(address, options)).then(() => true);
  const reloaded = changed ? await reloadInstances(dataDir, capability) : [];
  report({ ...address, changed, reloaded }, options);
  return changed ? EXIT.ok : EXIT.usage;
}

async function askValue(
  { capability, key }: { readonly capability: string; readonly key: string },
  { stdin }: SetSecretOptions,
): Promise<string> {
  if (stdin === true) return await readAll();
  if (process.stdin.isTTY) return await readHidden(`Value of ${key} for ${capability}: `);
  throw new CjmError("SECRET_INVALID", "Nobody can be asked here; give the value with --stdin");
}

/** Standard input without the newline that a pipe ends with. */
async function readAll(): Promise<string> {
  let text = "";
  process.stdin.setEncoding("utf8");
  for await (const part of process.stdin) {
    text += String(part);
    if (text.length > MAX_BYTES) {
      throw new CjmError("SECRET_INVALID", `A secret has at most ${MAX_BYTES} characters`);
    }
  }
  return text.replace(/\r?\n$/u, "");
}

/** One line of the terminal, typed unseen. */
async function readHidden(prompt: string): Promise<string> {
  const { stdin } = process;
  process.stderr.write(prompt);
  stdin.setRawMode(true).setEncoding("utf8").resume();
  const line = Promise.withResolvers<string>();
  let value = "";
  const type = (text: string): void => {
    for (const char of text) {
      if (char === CTRL_C) line.reject(new CjmError("SECRET_INVALID", "Nothing was changed"));
      else if (END_OF_LINE.has(char)) line.resolve(value);
      else value = BACKSPACE.test(char) ? value.slice(0, -1) : value + char;
    }
  };
  stdin.on("data", type);
  try {
    return await line.promise;
  } finally {
    stdin.off("data", type).setRawMode(false).pause();
    process.stderr.write("\n");
  }
}

/** A worker gets its secrets when it starts; those that run are replaced. */
async function reloadInstances(dataDir: string, capability: string): Promise<readonly string[]> {
  const live = await readHostInfo(dataDir);
  if (live?.door == null) return [];
  await using client = new DoorClient(live.door);
  const { instances } = await client.status();
  const concerned = instances.filter((one) => one.capability === capability && one.pid !== null);
  for (const { id } of concerned) await client.reload(id);
  return concerned.map(({ id }) => id);
}

function report(
  done: {
    readonly capability: string;
    readonly key: string;
    readonly changed: boolean;
    readonly reloaded: readonly string[];
  },
  options: SetSecretOptions,
): void {
  if (options.json === true) {
    printJson(done);
    return;
  }
  const name = `${done.capability}/${done.key}`;
  if (!done.changed) printError(`There is no secret ${name}.`);
  else print(options.delete === true ? `Deleted ${name}.` : `Kept ${name}.`);
  for (const id of done.reloaded) print(`Instance ${id} has a new worker with it.`);
}
