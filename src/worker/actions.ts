import { z } from "zod";
import { CjmError } from "../errors/index.ts";
import { compact } from "../util/compact.ts";
import type { Action, Capability, StreamingAction, UnaryAction } from "./capability.ts";
import { strict, validate } from "./validation.ts";

export type AnyUnary = UnaryAction<unknown, z.ZodType, z.ZodType>;
export type AnyStreaming = StreamingAction<unknown, z.ZodType, z.ZodType>;

export interface SelectedAction {
  readonly name: string;
  readonly action: Action;
  readonly input: Readonly<Record<string, unknown>>;
}

/**
 * The action a request means, and its input: `kwargs.action` names it, positional arguments take
 * the input's properties in their order.
 *
 * @throws {CjmError} `ACTION_UNKNOWN`, or `CAPABILITY_INPUT` for arguments without a place.
 */
export function selectAction(
  capability: Capability,
  request: { readonly args: readonly unknown[]; readonly kwargs: Record<string, unknown> },
): SelectedAction {
  const { action: wanted = defaultAction(capability), ...named } = request.kwargs;
  const action = findAction(capability, wanted);
  const name = String(wanted);
  return { name, action, input: bindArguments(name, action, { args: request.args, named }) };
}

/** @throws {CjmError} `ACTION_UNKNOWN`. */
export function findAction(capability: Capability, name: unknown): Action {
  const { actions } = capability;
  const found =
    typeof name === "string" && Object.hasOwn(actions, name) ? actions[name] : undefined;
  if (found !== undefined) return found;
  const known = Object.keys(actions).join(", ");
  const what =
    name === undefined
      ? "was called without an action and has no default"
      : `has no action ${JSON.stringify(name)}`;
  throw new CjmError("ACTION_UNKNOWN", `${capability.name} ${what}; it has: ${known}`, {
    fieldsInvalid: ["action"],
  });
}

/** The action meant where none is named: the one marked so, or the only one. */
export function defaultAction({ actions }: Capability): string | undefined {
  const names = Object.keys(actions);
  return (
    names.find((name) => actions[name]?.default) ?? (names.length === 1 ? names[0] : undefined)
  );
}

function bindArguments(
  name: string,
  action: Action,
  { args, named }: { readonly args: readonly unknown[]; readonly named: Record<string, unknown> },
): Record<string, unknown> {
  if (args.length === 0) return named;
  const names = propertyOrder(action.input);
  const twice = names.slice(0, args.length).filter((property) => Object.hasOwn(named, property));
  if (args.length > names.length || twice.length > 0) {
    throw new CjmError(
      "CAPABILITY_INPUT",
      `${name} takes at most ${names.length} positional arguments, each once`,
      { fieldsInvalid: twice.length > 0 ? twice : ["args"] },
    );
  }
  const positional = Object.fromEntries(names.map((property, index) => [property, args[index]]));
  const given: Record<string, unknown> = compact(positional);
  return { ...named, ...given };
}

/** The properties of an object schema in the order they were declared. */
export function propertyOrder(schema: z.ZodType): readonly string[] {
  if (schema instanceof z.ZodObject) return Object.keys(schema.shape);
  const { properties } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return Object.keys(properties ?? {});
}

export function parseInput(name: string, action: Action, input: unknown): Promise<unknown> {
  return validate(strict(action.input), input, {
    code: "CAPABILITY_INPUT",
    what: `input of ${name}`,
  });
}

export function parseOutput(name: string, action: Action, output: unknown): Promise<unknown> {
  return validate(action.output, output, { code: "CAPABILITY_OUTPUT", what: `output of ${name}` });
}
