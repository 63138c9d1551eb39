import { compile, type JSONSchema } from "json-schema-to-typescript";
import type { ActionManifest, Manifest } from "../protocol/index.ts";
import { isRecord } from "../util/record.ts";

/** An instance under the id that the pipeline will know it by. */
export interface BoundInstance {
  readonly id: string;
  readonly code: Manifest["code"];
}

const HEAD = `// Written by \`cjm-ctl types\`; do not edit.
import type { BoundAction, BoundCall } from "cjm-substrate";
`;

/**
 * A module that types \`pipeline.bindings\`: for each instance its actions, with their arguments and
 * results as the manifests' JSON Schemas describe them.
 */
export async function bindingTypes(instances: readonly BoundInstance[]): Promise<string> {
  const declarations: string[] = [];
  const members: string[] = [];
  for (const { id, code } of instances) {
    const actions: string[] = [];
    for (const [name, action] of Object.entries(code.actions ?? {})) {
      const type = pascal(`${id}-${name}`);
      const args = `${type}Args`;
      const result = `${type}${action.streaming ? "Chunk" : "Result"}`;
      declarations.push(await declarationOf(args, action.input_schema));
      declarations.push(await declarationOf(result, action.output_schema));
      actions.push(
        ...comment(action.description, "      "),
        actionMember(name, action, { args, result }),
      );
    }
    actions.push(...taskMembers(code.tasks ?? {}));
    members.push(
      ...comment(code.description, "    "),
      `    readonly ${key(id)}: {\n${actions.join("\n")}\n    };`,
    );
  }
  const augmentation = `declare module "cjm-substrate" {
  interface CapabilityBindings {
${members.join("\n")}
  }
}
`;
  return [HEAD, ...declarations, augmentation].join("\n");
}

/** A manifest has no schemas of task methods. */
function taskMembers(tasks: Readonly<Record<string, readonly string[]>>): string[] {
  const lines = Object.entries(tasks).map(([task, methods]) => {
    const calls = methods.map((method) => `readonly ${key(method)}: BoundAction;`);
    return `        readonly ${key(task)}: { ${calls.join(" ")} };`;
  });
  return lines.length === 0 ? [] : ["      readonly tasks: {", ...lines, "      };"];
}

function actionMember(
  name: string,
  { input_schema, streaming }: ActionManifest,
  { args, result }: { readonly args: string; readonly result: string },
): string {
  const required = input_schema["required"];
  const isOptional = !Array.isArray(required) || required.length === 0;
  const call = streaming ? `BoundCall<unknown, ${result}>` : `BoundCall<${result}, unknown>`;
  return `      readonly ${key(name)}: (kwargs${isOptional ? "?" : ""}: ${args}) => ${call};`;
}

/** One exported type and those it refers to, whose names begin with its own so that none collide. */
async function declarationOf(
  name: string,
  schema: Readonly<Record<string, unknown>>,
): Promise<string> {
  const named: JSONSchema = { ...localSchema(schema, name), title: name };
  const text = await compile(named, name, {
    additionalProperties: false,
    bannerComment: "",
    format: true,
    // A tuple for each bound of an array would make unreadable types of thousands of members.
    ignoreMinAndMaxItems: true,
    style: { printWidth: 100 },
  });
  return text.trim();
}

/** Titles become exported names, the same for every action that has them; definitions do too. */
function localSchema(schema: unknown, owner: string): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  if (!isRecord(schema)) return result;
  for (const [name, value] of Object.entries(schema)) {
    if ((name === "title" && typeof value === "string") || name === "$schema") continue;
    if (name === "$ref" && typeof value === "string") {
      result[name] = value.replace(DEFINITION, (_all, folder: string, key: string) => {
        return `${folder}${ownName(owner, key)}`;
      });
    } else if ((name === "$defs" || name === "definitions") && isRecord(value)) {
      const definitions = Object.entries(value);
      result[name] = Object.fromEntries(
        definitions.map(([key, member]) => [ownName(owner, key), localSchema(member, owner)]),
      );
    } else {
      result[name] = localValue(value, owner);
    }
  }
  return result;
}

const DEFINITION = /^(#\/(?:\$defs|definitions)\/)([^/]+)/u;
const ownName = (owner: string, key: string): string => `${owner}${pascal(key)}`;

function localValue(value: unknown, owner: string): unknown {
  if (Array.isArray(value)) return value.map((member) => localValue(member, owner));
  return isRecord(value) ? localSchema(value, owner) : value;
}

function comment(text: string, indent: string): string[] {
  const line = text.replaceAll("*/", "*\\/").replaceAll(/\s+/gu, " ").trim();
  return line === "" ? [] : [`${indent}/** ${line} */`];
}

function key(name: string): string {
  return /^[A-Za-z_$][\w$]*$/u.test(name) ? name : JSON.stringify(name);
}

function pascal(text: string): string {
  return text
    .split(/[^A-Za-z0-9]+/u)
    .filter((part) => part !== "")
    .map((part) => `${part.slice(0, 1).toUpperCase()}${part.slice(1)}`)
    .join("");
}
