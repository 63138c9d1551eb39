/** One finding in a capability's Python source. */
export interface Finding {
  readonly line: number;
  readonly isError: boolean;
  readonly message: string;
}

/**
 * Finds calls of `logging.basicConfig`: the worker installs its log handler before the capability is
 * loaded, `force=True` removes it, and without it the call does nothing.
 *
 * Reads text and runs nothing; calls inside strings and comments do not count.
 */
export function lintPython(source: string): Finding[] {
  const code = withoutStringsAndComments(source);
  return [...code.matchAll(/(?<![\w.])(?:logging\s*\.\s*)?basicConfig\s*\(/gu)].map((match) => {
    const call = callAt(code, match.index + match[0].length);
    const isError = /(?<!\w)force\s*=\s*True(?!\w)/u.test(call);
    return {
      line: code.slice(0, match.index).split("\n").length,
      isError,
      message: isError
        ? "logging.basicConfig(force=True) removes the worker's log handler: every record after it is lost"
        : "logging.basicConfig does nothing here: the worker's log handler is already installed",
    };
  });
}

/** The same text, with strings and comments blanked and every line where it was. */
function withoutStringsAndComments(source: string): string {
  const pattern =
    /#[^\n]*|'''[\s\S]*?'''|"""[\s\S]*?"""|'(?:\\[\s\S]|[^'\\\n])*'|"(?:\\[\s\S]|[^"\\\n])*"/gu;
  return source.replace(pattern, (text) => text.replaceAll(/[^\n]/gu, " "));
}

/** The arguments of a call, up to its closing bracket. */
function callAt(code: string, start: number): string {
  let depth = 1;
  for (let index = start; index < code.length; index += 1) {
    if (code[index] === "(") depth += 1;
    if (code[index] === ")") depth -= 1;
    if (depth === 0) return code.slice(start, index);
  }
  return code.slice(start);
}
