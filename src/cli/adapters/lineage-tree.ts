/** One line of a tree and what it is about. */
export interface TreeLine {
  /** Branches drawn before the name. */
  readonly branches: string;
  readonly id: string;
  /** Its parents are drawn further up. */
  readonly isRepeated: boolean;
}

/**
 * An adapter with its parents below it, theirs below them. A DAG as a tree: who stands there a second
 * time is named, and its own parents are not drawn again, so that a cycle ends too.
 */
export function lineageTree(
  id: string,
  parentsOf: (id: string) => readonly string[],
): readonly TreeLine[] {
  const lines: TreeLine[] = [];
  const drawn = new Set<string>();
  const draw = (one: string, branches: string, below: string): void => {
    const parents = parentsOf(one);
    const isRepeated = drawn.has(one) && parents.length > 0;
    lines.push({ branches, id: one, isRepeated });
    if (drawn.has(one)) return;
    drawn.add(one);
    for (const [index, parent] of parents.entries()) {
      const isLast = index === parents.length - 1;
      draw(parent, `${below}${isLast ? "└─ " : "├─ "}`, `${below}${isLast ? "   " : "│  "}`);
    }
  };
  draw(id, "", "");
  return lines;
}
