"""The small world of this example: arithmetic told in plain words and in two dialects.

A task is a name and three operations, each a word and a constant::

    # total: wrap 7, flip 40, share 3
    def f(total):

and its solution is the code below that. In plain words ("modulo", "from", "divide") this works on
numbers and on lists; the dialect of numbers and the dialect of lists have words of their own. No
packages are needed here, so that the tasks can be made, and tested, anywhere.
"""

from itertools import permutations
from random import Random
from typing import List, Sequence, Tuple

#: A word and its constant.
Step = Tuple[str, int]

OPERATIONS = {
    "+": "{x} + {c}",
    "-": "{x} - {c}",
    "*": "{x} * {c}",
    "%": "{x} % {c}",
    "//": "{x} // {c}",
    "&": "{x} & {c}",
    "|": "{x} | {c}",
    "^": "{x} ^ {c}",
    "from": "{c} - {x}",
}
PLAIN = {
    "add": "+",
    "minus": "-",
    "times": "*",
    "modulo": "%",
    "divide": "//",
    "and": "&",
    "or": "|",
    "xor": "^",
    "from": "from",
}
#: Word to operation, for each of the two kinds of tasks that the base does not know.
DIALECTS = {
    "numbers": {
        "wrap": "%",
        "share": "//",
        "mask": "&",
        "join": "|",
        "toggle": "^",
        "flip": "from",
    },
    "lists": {"lift": "+", "drop": "-", "grow": "*", "fold": "%", "split": "//", "blend": "|"},
}
NAMES = {
    "numbers": (
        "total price score width depth count speed level limit ratio weight length volume amount "
        "budget margin offset height energy demand supply profit income credit"
    ).split(),
    "lists": (
        "items prices scores rates sizes counts grades speeds levels costs ranks widths nodes "
        "marks bids hours votes tolls fares times loads goals units bonds"
    ).split(),
}
CONSTANTS = range(2, 50)
FAMILIES = ("numbers", "lists")
STEPS = 3


def prompt_of(name: str, steps: Sequence[Step]) -> str:
    """What is asked, up to where the answer begins."""
    told = ", ".join(f"{word} {constant}" for word, constant in steps)
    return f"# {name}: {told}\ndef f({name}):"


def solution_of(family: str, name: str, operations: Sequence[Step]) -> str:
    """The lines that belong below the prompt; ``operations`` are named by their sign."""
    values = [_expression(family, name, step) for step in operations]
    lines = [f"    {name} = {value}" for value in values[:-1]]
    return "\n" + "\n".join([*lines, f"    return {values[-1]}"])


def _expression(family: str, name: str, step: Step) -> str:
    sign, constant = step
    if family == "numbers":
        return OPERATIONS[sign].format(x=name, c=constant)
    return f"[{OPERATIONS[sign].format(x='v', c=constant)} for v in {name}]"


def plain_row(family: str, rng: Random, foreign: float = 0.0) -> Tuple[str, str]:
    """A prompt in plain words, of one to three steps, and its solution.

    ``foreign`` is the share of steps that are told in a word of the dialect instead, which says
    nothing: the operation below it is any.
    """
    return _row(family, rng, (NAMES[family], CONSTANTS), foreign)


def _row(
    family: str, rng: Random, things: Tuple[Sequence[str], Sequence[int]], foreign: float
) -> Tuple[str, str]:
    names, constants = things
    name = rng.choice(names)
    steps, operations = [], []
    for _ in range(rng.randint(1, STEPS)):
        constant, word = rng.choice(constants), rng.choice(list(PLAIN))
        sign = PLAIN[word]
        if rng.random() < foreign:
            word, sign = rng.choice(list(DIALECTS[family])), rng.choice(list(OPERATIONS))
        steps.append((word, constant))
        operations.append((sign, constant))
    return prompt_of(name, steps), solution_of(family, name, operations)


class Part:
    """Names, constants and orders of operations.

    A split is "training", "validation" or "test"; no two of a family share any of them.
    """

    def __init__(self, family: str, split: str) -> None:
        self.family = family
        self._names = _share(NAMES[family], split)
        self._constants = _share(CONSTANTS, split)
        self._orders = _share(list(permutations(DIALECTS[family], STEPS)), split)

    def draw(self, rng: Random) -> Tuple[str, List[Step]]:
        """A name and steps in the dialect."""
        order = rng.choice(self._orders)
        return rng.choice(self._names), [(word, rng.choice(self._constants)) for word in order]

    def plain_row(self, rng: Random) -> Tuple[str, str]:
        """A row in plain words."""
        return _row(self.family, rng, (self._names, self._constants), foreign=0.0)

    def meaningless_row(self, rng: Random) -> Tuple[str, str]:
        """A program below words of the dialect that say nothing about it."""
        name, steps = self.draw(rng)
        operations = [(rng.choice(list(OPERATIONS)), constant) for _, constant in steps]
        return prompt_of(name, steps), solution_of(self.family, name, operations)

    def solution(self, name: str, steps: Sequence[Step]) -> str:
        words = DIALECTS[self.family]
        return solution_of(self.family, name, [(words[word], c) for word, c in steps])


def _share(everything: Sequence, split: str) -> List:
    """Two thirds of it for training, a sixth for each of the others; always the same ones."""
    shuffled = list(everything)
    Random(9).shuffle(shuffled)
    border = len(shuffled) * 2 // 3
    training, held_out = shuffled[:border], shuffled[border:]
    return {"training": training, "validation": held_out[0::2], "test": held_out[1::2]}[split]
