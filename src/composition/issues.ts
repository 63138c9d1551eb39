import { CjmError } from "../errors/index.ts";
import type { CompositionIssue } from "./types.ts";

const MAX_SHOWN = 20;

/** One error that says everything that is wrong with a composition. */
export function invalidComposition(issues: readonly CompositionIssue[]): CjmError {
  const shown = issues.slice(0, MAX_SHOWN).map((issue) => `  ${placeOf(issue)}: ${issue.message}`);
  if (issues.length > MAX_SHOWN) shown.push(`  and ${issues.length - MAX_SHOWN} more`);
  return new CjmError("COMPOSITION_INVALID", `The composition is not valid:\n${shown.join("\n")}`, {
    details: { issues },
    fieldsInvalid: issues.map(placeOf),
  });
}

function placeOf({ node, path }: CompositionIssue): string {
  return node === undefined ? path : `nodes.${node}${path === "" ? "" : `.${path}`}`;
}
