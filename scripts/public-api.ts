// Writes api/: the declarations a user of the package can reach from its entries, without comments.
// Needs a build. With --check it fails when one is stale; a diff there is a decision about semver.
import { readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { writeGenerated, type Generated } from "./generated.ts";

const DIST = fileURLToPath(new URL("../dist", import.meta.url));
const ENTRIES = { index: "index.d.ts", worker: "worker/index.d.ts" };

/** A name where it is declared, or the package it comes from. */
interface Target {
  readonly file: string;
  readonly name: string;
}

/** One emitted declaration file. */
interface Module {
  /** Statements that declare, by name; overloads share one. */
  readonly declared: ReadonlyMap<string, string>;
  /** Local name to what it stands for, of imports and of re-exports. */
  readonly imported: ReadonlyMap<string, Target>;
  readonly reexported: ReadonlyMap<string, Target>;
  readonly stars: readonly string[];
}

const modules = new Map<string, Module>();

function load(file: string): Module {
  const known = modules.get(file);
  if (known !== undefined) return known;
  const parts = {
    declared: new Map<string, string>(),
    imported: new Map<string, Target>(),
    reexported: new Map<string, Target>(),
    stars: new Array<string>(),
  };
  for (const statement of statementsOf(readFileSync(join(DIST, file), "utf8"))) {
    const from = / from "(?<from>[^"]+)";?$/u.exec(statement)?.groups?.["from"];
    if (from !== undefined) {
      const target = targetFile(file, from);
      const names = namesOf(statement, target);
      const map = statement.startsWith("import") ? parts.imported : parts.reexported;
      for (const [name, one] of names) map.set(name, one);
      if (map === parts.reexported && names.length === 0) parts.stars.push(target);
    } else {
      declare(parts.declared, statement);
    }
  }
  modules.set(file, parts);
  return parts;
}

/** Overloads of one name follow each other. */
function declare(declared: Map<string, string>, statement: string): void {
  const name = DECLARATION.exec(statement)?.groups?.["name"];
  if (name === undefined) return;
  const before = declared.get(name);
  declared.set(name, before === undefined ? statement : `${before}\n${statement}`);
}

const DECLARATION =
  /^(?:export )?(?:declare )?(?:abstract )?(?:interface|type|class|function|const|let|enum)\s+(?<name>[A-Za-z_$][\w$]*)/u;

/** Top-level statements; members are indented, so a line that is not begins a new one. */
function statementsOf(source: string): string[] {
  const code = source
    .replaceAll(/\/\*[\s\S]*?\*\//gu, "")
    .replaceAll(/^\s*\/\/.*$/gmu, "")
    .replaceAll(/^\s*\n/gmu, "");
  const statements: string[] = [];
  for (const line of code.split("\n")) {
    if (/^[a-z]/u.test(line)) statements.push(line);
    else if (line !== "" && statements.length > 0) statements.push(`${statements.pop()}\n${line}`);
  }
  return statements;
}

function targetFile(file: string, specifier: string): string {
  if (!specifier.startsWith(".")) return specifier;
  return join(dirname(file), specifier).replace(/\.[jt]s$/u, ".d.ts");
}

function namesOf(statement: string, file: string): [string, Target][] {
  const members = /\{(?<members>[^}]*)\}/u.exec(statement)?.groups?.["members"] ?? "";
  return members
    .split(",")
    .map((member) => member.trim().replace(/^type /u, ""))
    .filter((member) => member !== "")
    .map((member) => {
      const [name = "", alias = name] = member.split(" as ");
      return [alias, { file, name }];
    });
}

const isOurs = ({ file }: Target): boolean => file.endsWith(".d.ts");

/** Follows re-exports to the declaration. */
function resolve(target: Target): Target {
  if (!isOurs(target)) return target;
  const { declared, reexported, imported, stars } = load(target.file);
  if (declared.has(target.name)) return target;
  const next = reexported.get(target.name) ?? imported.get(target.name);
  if (next !== undefined) return resolve(next);
  const star = stars.find((file) => exportsOf(file).has(target.name));
  if (star === undefined) throw new Error(`${target.file} has no ${target.name}`);
  return resolve({ file: star, name: target.name });
}

function exportsOf(file: string): Map<string, Target> {
  const { declared, reexported, stars } = load(file);
  const names = new Map<string, Target>(stars.flatMap((star) => [...exportsOf(star)]));
  for (const [name, text] of declared)
    if (text.startsWith("export")) names.set(name, { file, name });
  for (const [name, target] of reexported) names.set(name, target);
  return names;
}

/** Everything a declaration's text names, that is itself declared in this package. */
function referredBy({ file, name }: Target): Target[] {
  const { declared, imported } = load(file);
  const words = new Set(declared.get(name)?.match(/[A-Za-z_$][\w$]*/gu) ?? []);
  return [...words].flatMap((word) => {
    if (word === name) return [];
    const target = declared.has(word) ? { file, name: word } : imported.get(word);
    return target === undefined || !isOurs(target) ? [] : [resolve(target)];
  });
}

const keyOf = ({ file, name }: Target): string => `${name} ${file}`;

function report(entry: string): string {
  const exported = [...exportsOf(entry)].map(([name, target]) => [name, resolve(target)] as const);
  const queue = exported.map(([, target]) => target).filter(isOurs);
  const reached = new Map<string, Target>();
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    if (reached.has(keyOf(next))) continue;
    reached.set(keyOf(next), next);
    queue.push(...referredBy(next));
  }
  const names = exported
    .map(([name, target]) => (isOurs(target) ? name : `${name} (${target.file})`))
    .sort();
  const declarations = [...reached.values()]
    .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
    .map(({ file, name }) => {
      const place = relative(".", file).replace(/\.d\.ts$/u, ".ts");
      const text = load(file).declared.get(name) ?? "";
      return `// ${place}\n${text.replaceAll(/^export /gmu, "")}\n`;
    });
  return [
    "// Generated by scripts/public-api.ts. Exported:",
    ...names.map((name) => `//   ${name}`),
    "",
    ...declarations,
  ].join("\n");
}

await writeGenerated(
  Object.entries(ENTRIES).map(([name, entry]): Generated => ({
    path: `api/${name}.d.ts`,
    content: report(entry),
  })),
);
