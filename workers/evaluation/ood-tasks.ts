import type { Task } from "./schemas.ts";

type Case = Omit<Task["cases"][number], "kwargs">;

/** What a task needs of its own; the prompt is its signature and what it should do. */
interface Sketch {
  readonly id: string;
  readonly signature: string;
  readonly does: string;
  readonly body: readonly string[];
  readonly cases: readonly Case[];
}

/** `[arguments, expected]` of each case. */
function cases(...pairs: readonly (readonly [unknown[], Case["expected"]])[]): Case[] {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- literals below, JSON all of them
  return pairs.map(([args, expected]) => ({ args: args as Case["args"], expected }));
}

function toTask({ id, signature, does, body, cases: own }: Sketch): Task {
  const head = `def ${signature}:\n`;
  return {
    id: `ood/${id}`,
    family: "ood",
    prompt: `${head}    """${does}"""\n`,
    prefix: head,
    function: signature.slice(0, signature.indexOf("(")),
    cases: own.map((one) => ({ ...one, kwargs: {} })),
    language: "python",
    solution: `${head}${body.map((line) => `    ${line}\n`).join("")}`,
  };
}

const SKETCHES: readonly Sketch[] = [
  {
    id: "run-lengths",
    signature: "run_lengths(text)",
    does: "The lengths of runs of equal characters, in order.",
    body: ["import itertools", "return [len(list(run)) for _, run in itertools.groupby(text)]"],
    cases: cases([["aabccc"], [2, 1, 3]], [[""], []], [["zzzz"], [4]], [["ab"], [1, 1]]),
  },
  {
    id: "digit-root",
    signature: "digit_root(number)",
    does: "Add the decimal digits again and again until one is left.",
    body: ["while number > 9:", "    number = sum(int(d) for d in str(number))", "return number"],
    cases: cases([[0], 0], [[38], 2], [[99999], 9], [[10], 1]),
  },
  {
    id: "merge-intervals",
    signature: "merge_intervals(intervals)",
    does: "Join closed intervals [start, end] that overlap or touch; sorted by start.",
    body: [
      "merged = []",
      "for start, end in sorted(intervals):",
      "    if merged and start <= merged[-1][1]:",
      "        merged[-1][1] = max(merged[-1][1], end)",
      "    else:",
      "        merged.append([start, end])",
      "return merged",
    ],
    cases: cases(
      [
        [
          [
            [1, 3],
            [2, 6],
            [8, 9],
          ],
        ],
        [
          [1, 6],
          [8, 9],
        ],
      ],
      [[[]], []],
      [
        [
          [
            [5, 7],
            [1, 2],
            [2, 4],
          ],
        ],
        [
          [1, 4],
          [5, 7],
        ],
      ],
      [
        [
          [
            [1, 9],
            [2, 3],
          ],
        ],
        [[1, 9]],
      ],
    ),
  },
  {
    id: "balanced",
    signature: "balanced(text)",
    does: "True if every bracket of ()[]{} is closed by its own kind in the right order.",
    body: [
      "stack = []",
      "for char in text:",
      "    if char in '([{':",
      "        stack.append(')]}'['([{'.index(char)])",
      "    elif char in ')]}' and (not stack or stack.pop() != char):",
      "        return False",
      "return not stack",
    ],
    cases: cases(
      [["a(b[c]{d})"], true],
      [["(]"], false],
      [["("], false],
      [[")"], false],
      [[""], true],
    ),
  },
  {
    id: "transpose",
    signature: "transpose(rows)",
    does: "Rows become columns; all rows are of equal length.",
    body: ["return [list(column) for column in zip(*rows)]"],
    cases: cases(
      [
        [
          [
            [1, 2, 3],
            [4, 5, 6],
          ],
        ],
        [
          [1, 4],
          [2, 5],
          [3, 6],
        ],
      ],
      [[[]], []],
      [[[[7]]], [[7]]],
    ),
  },
  {
    id: "roman",
    signature: "roman(number)",
    does: "A number from 1 to 3999 in Roman numerals.",
    body: [
      "marks = [(1000, 'M'), (900, 'CM'), (500, 'D'), (400, 'CD'), (100, 'C'), (90, 'XC'),",
      "         (50, 'L'), (40, 'XL'), (10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')]",
      "text = ''",
      "for value, mark in marks:",
      "    text += mark * (number // value)",
      "    number %= value",
      "return text",
    ],
    cases: cases([[1994], "MCMXCIV"], [[4], "IV"], [[3999], "MMMCMXCIX"], [[8], "VIII"]),
  },
  {
    id: "second-largest",
    signature: "second_largest(numbers)",
    does: "The second largest different number, or None.",
    body: [
      "different = sorted(set(numbers))",
      "return different[-2] if len(different) > 1 else None",
    ],
    cases: cases([[[3, 1, 3, 2]], 2], [[[5, 5]], null], [[[]], null], [[[-1, -2]], -2]),
  },
  {
    id: "word-count",
    signature: "word_count(text)",
    does: "How often each word is there, whatever its case; words are separated by white space.",
    body: [
      "counts = {}",
      "for word in text.lower().split():",
      "    counts[word] = counts.get(word, 0) + 1",
      "return counts",
    ],
    cases: cases([["To be or not to be"], { to: 2, be: 2, or: 1, not: 1 }], [["  "], {}]),
  },
  {
    id: "rotate",
    signature: "rotate(items, steps)",
    does: "Move every item to the right by so many places, around the end; negative: to the left.",
    body: [
      "if not items:",
      "    return []",
      "cut = -steps % len(items)",
      "return items[cut:] + items[:cut]",
    ],
    cases: cases(
      [
        [[1, 2, 3, 4], 1],
        [4, 1, 2, 3],
      ],
      [
        [[1, 2, 3], -1],
        [2, 3, 1],
      ],
      [[[], 3], []],
      [
        [[1, 2], 5],
        [2, 1],
      ],
    ),
  },
  {
    id: "base",
    signature: "to_base(number, base)",
    does: "A non-negative number written in a base from 2 to 16, lower-case digits.",
    body: [
      "digits = ''",
      "while True:",
      "    digits = '0123456789abcdef'[number % base] + digits",
      "    number //= base",
      "    if number == 0:",
      "        return digits",
    ],
    cases: cases([[255, 16], "ff"], [[0, 2], "0"], [[10, 2], "1010"], [[64, 8], "100"]),
  },
];

/** Our own out-of-distribution tasks, with solutions that a test runs. */
export const OOD_TASKS: readonly Task[] = SKETCHES.map(toTask);
