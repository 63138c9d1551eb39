/**
 * Stores an adapter and kills itself at a write: `<folder> <adapter> <id> <step>`.
 *
 * Every function that writes, of the file system and of SQLite, counts as a step when it has done its
 * work; a copy counts once more in the middle. Prints the number of steps if it gets to the end.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import BetterSqlite3 from "better-sqlite3";
import type * as FolderModule from "../../../workers/adapter-registry/adapter-folder.ts";
import type * as RegistryModule from "../../../workers/adapter-registry/registry.ts";
import type * as SchemasModule from "../../../workers/adapter-registry/schemas.ts";

const [folder = "", adapter = "", id = "", last = "-1"] = process.argv.slice(2);
let steps = 0;

function step(): void {
  steps += 1;
  if (steps === Number(last)) process.kill(process.pid, "SIGKILL");
}

type Method = (this: unknown, ...args: never[]) => unknown;

/** Counts a call of `owner[name]` when it is done. */
function count(owner: object, name: string): void {
  const original = Reflect.get(owner, name) as Method;
  Reflect.set(owner, name, function counted(this: unknown, ...args: never[]): unknown {
    const result = original.apply(this, args);
    if (!(result instanceof Promise)) {
      step();
      return result;
    }
    return result.then((value: unknown) => {
      step();
      return value;
    });
  });
}

const { copyFile } = fs.promises;
fs.promises.copyFile = async (from, to, mode) => {
  const bytes = await fs.promises.readFile(from);
  const half = await fs.promises.open(to, "wx");
  await half.write(bytes.subarray(0, bytes.length / 2));
  await half.close();
  step();
  await fs.promises.rm(to);
  await copyFile(from, to, mode);
};
for (const name of ["mkdir", "copyFile", "chmod", "rename", "rm", "link"]) count(fs.promises, name);
count(fs, "mkdirSync");
const handle = await fs.promises.open(adapter);
count(Object.getPrototypeOf(handle) as object, "sync");
await handle.close();
syncBuiltinESMExports();

const database = new BetterSqlite3(":memory:");
count(Object.getPrototypeOf(database.prepare("select 1")) as object, "run");
count(BetterSqlite3.prototype, "exec");
database.close();
type Transaction = (this: BetterSqlite3.Database, body: never) => object;
const transaction = Reflect.get(BetterSqlite3.prototype, "transaction") as Transaction;
BetterSqlite3.prototype.transaction = function counted(this: BetterSqlite3.Database, body: never) {
  const committed = transaction.call(this, body);
  const owner = { committed };
  count(owner, "committed");
  return owner.committed as never;
};

// What is built: it starts in a third of the time, and this program is started for every step.
const built = new URL("../../../dist/workers/adapter-registry/", import.meta.url).href;
const { openAdapterFolder } = (await import(`${built}adapter-folder.js`)) as typeof FolderModule;
const { AdapterRegistry } = (await import(`${built}registry.js`)) as typeof RegistryModule;
const { storeInputSchema } = (await import(`${built}schemas.js`)) as typeof SchemasModule;
const asker = { jobId: `store ${id}`, signal: new AbortController().signal };
const { adapter: source, ...facts } = storeInputSchema.parse({
  adapter,
  id,
  task_type: "spelling",
});
using registry = await AdapterRegistry.open(folder, asker.signal);
await registry.store(() => openAdapterFolder(source), facts, asker);
console.log(steps);
