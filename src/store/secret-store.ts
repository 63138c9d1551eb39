import type { Stats } from "node:fs";
import { chmod, mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CjmError } from "../errors/index.ts";
import { replaceFile } from "../util/replace-file.ts";

/** A shorter value cannot be redacted: it would occur in ordinary text. */
const MIN_VALUE_LENGTH = 8;
const DEFAULT_SCOPE = "__default__";

const secretsSchema = z.record(z.string(), z.record(z.string(), z.record(z.string(), z.string())));
type Secrets = z.output<typeof secretsSchema>;

/** Which secret: of a capability, under a key, usually the name of the variable it is injected as. */
export interface SecretAddress {
  readonly capability: string;
  readonly key: string;
  readonly scope?: string | undefined;
}

/**
 * Secrets of capabilities in `<data_dir>/secrets/secrets.json`, plain text, for its owner only.
 *
 * Values leave this class by `get` and `values` alone; no error message holds one.
 */
export class SecretStore {
  readonly #folder: string;
  readonly #path: string;
  /** Changes run one after another: each reads, alters and replaces the whole file. */
  #lastChange: Promise<unknown> = Promise.resolve();

  constructor(dataDir: string) {
    this.#folder = join(dataDir, "secrets");
    this.#path = join(this.#folder, "secrets.json");
  }

  /** @throws {CjmError} `SECRET_INVALID` if others may read the file or it is not whole. */
  async get({
    capability,
    key,
    scope = DEFAULT_SCOPE,
  }: SecretAddress): Promise<string | undefined> {
    const secrets = await this.#load();
    return own(own(own(secrets, scope), capability), key);
  }

  /** @throws {CjmError} `SECRET_INVALID` for a value under 8 characters, or as {@link get} does. */
  set({ capability, key, scope = DEFAULT_SCOPE }: SecretAddress, value: string): Promise<void> {
    if (value.length < MIN_VALUE_LENGTH) {
      return Promise.reject(
        new CjmError(
          "SECRET_INVALID",
          `The value of ${capability}/${key} has fewer than ${MIN_VALUE_LENGTH} characters, too few to be kept out of logs`,
        ),
      );
    }
    return this.#change((secrets) => {
      const members = own(own(secrets, scope), capability);
      const next = { ...own(secrets, scope), [capability]: { ...members, [key]: value } };
      return { changed: { ...secrets, [scope]: next }, answer: undefined };
    });
  }

  /** True if there was one. Containers that become empty go with it. */
  delete({ capability, key, scope = DEFAULT_SCOPE }: SecretAddress): Promise<boolean> {
    return this.#change((secrets) => {
      const ofScope = own(secrets, scope) ?? {};
      const ofCapability = own(ofScope, capability) ?? {};
      if (!Object.hasOwn(ofCapability, key)) return { changed: undefined, answer: false };
      const changed = replaced(
        secrets,
        scope,
        replaced(ofScope, capability, without(ofCapability, key)),
      );
      return { changed, answer: true };
    });
  }

  /** Names of the secrets of one capability, never values. */
  async listKeys(capability: string, scope: string = DEFAULT_SCOPE): Promise<readonly string[]> {
    return Object.keys(own(own(await this.#load(), scope), capability) ?? {}).sort();
  }

  /** Every capability with the names of its secrets. */
  async list(scope: string = DEFAULT_SCOPE): Promise<Readonly<Record<string, readonly string[]>>> {
    const capabilities = own(await this.#load(), scope) ?? {};
    return Object.fromEntries(
      Object.entries(capabilities).map(([name, keys]) => [name, Object.keys(keys).sort()]),
    );
  }

  /** Every value there is, for redaction. */
  async values(): Promise<readonly string[]> {
    const scopes = Object.values(await this.#load());
    return scopes.flatMap((scope) => Object.values(scope).flatMap((keys) => Object.values(keys)));
  }

  #change<Answer>(
    change: (secrets: Secrets) => {
      readonly changed: Secrets | undefined;
      readonly answer: Answer;
    },
  ): Promise<Answer> {
    const done = this.#lastChange.then(async () => {
      const { changed, answer } = change(await this.#load());
      if (changed !== undefined) await this.#save(changed);
      return answer;
    });
    this.#lastChange = done.catch(() => undefined);
    return done;
  }

  async #load(): Promise<Secrets> {
    const file = await statIfThere(this.#path);
    if (file === undefined) return {};
    this.#requirePrivate(this.#folder, (await stat(this.#folder)).mode, "700");
    this.#requirePrivate(this.#path, file.mode, "600");
    const secrets = parseSecrets(await readFile(this.#path, "utf8"));
    if (secrets !== undefined) return secrets;
    // No cause: a parser's message quotes what it read.
    throw new CjmError("SECRET_INVALID", `${this.#path} is not a whole secrets file`);
  }

  #requirePrivate(path: string, mode: number, wanted: string): void {
    if ((mode & 0o077) === 0) return;
    const found = (mode & 0o777).toString(8);
    throw new CjmError(
      "SECRET_INVALID",
      `${path} may be read by others (mode ${found}); run: chmod ${wanted} ${path}`,
    );
  }

  async #save(secrets: Secrets): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await chmod(this.#folder, 0o700);
    await replaceFile(this.#path, `${JSON.stringify(secrets, null, 2)}\n`);
  }
}

/** Anything but absence is an error: a file that cannot be seen must not be replaced. */
async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

function parseSecrets(text: string): Secrets | undefined {
  try {
    return secretsSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

function own<Value>(
  container: Readonly<Record<string, Value>> | undefined,
  key: string,
): Value | undefined {
  return container !== undefined && Object.hasOwn(container, key) ? container[key] : undefined;
}

function without<Value>(container: Record<string, Value>, key: string): Record<string, Value> {
  return Object.fromEntries(Object.entries(container).filter(([name]) => name !== key));
}

/** `container` with this member, or without it if it is empty. */
function replaced<Value extends object>(
  container: Record<string, Value>,
  key: string,
  member: Value,
): Record<string, Value> {
  if (Object.keys(member).length === 0) return without(container, key);
  return { ...container, [key]: member };
}
