import { join } from "node:path";
import type { SecretChange, SecretEffect } from "../../capability/index.ts";
import { DoorClient } from "../../door/index.ts";
import { CjmError } from "../../errors/index.ts";
import {
  acquireHostLock,
  openJournalDatabase,
  readHostInfo,
  type SecretAddress,
  SecretStore,
} from "../../store/index.ts";
import { compact } from "../../util/compact.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { print, printError, printJson } from "../terminal.ts";

export interface SetSecretOptions extends GlobalOptions {
  readonly stdin?: boolean;
  readonly value?: string;
  readonly delete?: boolean;
  readonly scope?: string;
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
  const secret = { capability, key, scope: options.scope };
  const value = options.delete === true ? null : await askValue(secret, options);
  const done = await changeSecret(dataDir, secret, value);
  report({ ...done, capability, key }, options);
  if (done.failed.length > 0) return EXIT.failed;
  return done.changed ? EXIT.ok : EXIT.usage;
}

/** What was done, and what became of the workers that had the secret. */
interface Done extends SecretEffect {
  readonly changed: boolean;
}

/**
 * Keeps or, for a null value, deletes a secret. A live host journals it and replaces the workers;
 * without one it is journaled here, under the host's lock.
 */
async function changeSecret(
  dataDir: string,
  secret: SecretAddress,
  value: string | null,
): Promise<Done> {
  const secrets = new SecretStore(dataDir);
  const change = async (): Promise<boolean> => {
    if (value === null) return await secrets.delete(secret);
    await secrets.set(secret, value);
    return true;
  };
  const told = { ...secret, change: value === null ? "delete" : "set" } as const;
  const live = await readHostInfo(dataDir);
  if (live?.door != null) {
    if (!(await change())) return { changed: false, reloaded: [], failed: [] };
    await using client = new DoorClient(live.door);
    return { changed: true, ...(await client.secretChanged(told)) };
  }
  // A host that is only starting has no door yet; the lock then refuses before anything is changed.
  await using _lock = await acquireHostLock(dataDir, { pid: process.pid, door: null });
  const changed = await change();
  if (changed) await journalChange(dataDir, told);
  return { changed, reloaded: [], failed: [] };
}

async function journalChange(
  dataDir: string,
  { capability, key, change, scope }: SecretChange,
): Promise<void> {
  await using store = await openJournalDatabase(join(dataDir, "journal.db"));
  const payload = compact({ key, change, scope });
  const event = { eventType: "secret_changed", capabilityName: capability, payload };
  await store.stage([{ op: "journal.append", event }]);
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
  // Before anything is shown: what is typed at once would be echoed.
  stdin.setRawMode(true).setEncoding("utf8").resume();
  process.stderr.write(prompt);
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

function report(
  done: Done & { readonly capability: string; readonly key: string },
  options: SetSecretOptions,
): void {
  if (options.json === true) {
    printJson(done);
    return;
  }
  const name = `${done.capability}/${done.key}`;
  if (!done.changed) printError(`There is no secret ${name}.`);
  else print(options.delete === true ? `Deleted ${name}.` : `Kept ${name}.`);
  const now = options.delete === true ? "without" : "with";
  for (const id of done.reloaded) print(`Instance ${id} has a new worker ${now} it.`);
  for (const { id, message } of done.failed) printError(`Instance ${id} has no worker: ${message}`);
}
