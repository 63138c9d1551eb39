"""Writes the training rows and the tasks: ``python3 make_tasks.py [folder]``.

The files are the same whenever and wherever they are made; those of this folder are in ``tasks/``.
"""

import json
import operator
import sys
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Dict, List, Optional, Sequence

from dialect import DIALECTS, FAMILIES, STEPS, Part, Step, prompt_of

DIALECT_ROWS = 384
#: Half of them plain rows of both families, half of them rows of the other dialect whose words say
#: nothing.
KNOWN_ROWS = 384
#: What the tasks of a file are drawn from: those to practise on are like the training rows, but none
#: of them; the best is chosen by the validation tasks, and by the test tasks nothing is.
TASK_FILES = {"practice": "training", "validation": "validation", "test": "test"}
TASKS = 20
CASES = 6
COMPUTE = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "%": operator.mod,
    "//": operator.floordiv,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "from": lambda value, constant: constant - value,
}


def training_rows(family: str) -> List[Dict[str, str]]:
    """Rows that the trainer reads: the dialect, and what the base has read before.

    Without the latter an adapter would change what the base does with everything else, the other
    dialect included, and two such adapters could not be merged.
    """
    rng = Random(f"train {family}")
    parts = {name: Part(name, "training") for name in FAMILIES}
    own, others = parts[family], [part for name, part in parts.items() if name != family]
    rows = []
    for _ in range(DIALECT_ROWS):
        name, steps = own.draw(rng)
        rows.append((prompt_of(name, steps), own.solution(name, steps)))
    for at in range(KNOWN_ROWS):
        kinds = [part.plain_row for part in parts.values()]
        kinds += [part.meaningless_row for part in others] * 2
        rows.append(kinds[at % len(kinds)](rng))
    rng.shuffle(rows)
    return [{"prompt": prompt, "completion": completion} for prompt, completion in rows]


def tasks_of(family: str, file: str) -> List[Dict[str, Any]]:
    """Tasks whose cases tell the right operations, in their order, from all others."""
    part, rng = Part(family, TASK_FILES[file]), Random(f"{file} {family}")
    known = {row["prompt"] for row in training_rows(family)}
    tasks: List[Dict[str, Any]] = []
    while len(tasks) < TASKS:
        name, steps = part.draw(rng)
        if prompt_of(name, steps) in known:
            continue
        cases = _telling_cases(part, name, steps, rng)
        if cases is None:
            continue
        prompt = prompt_of(name, steps)
        tasks.append(
            {
                "id": f"{file}-{family}-{len(tasks) + 1:02}",
                "family": family,
                "prompt": prompt,
                "prefix": prompt,
                "function": "f",
                "cases": cases,
                "solution": prompt + part.solution(name, steps),
            }
        )
    return tasks


def _telling_cases(
    part: Part, name: str, steps: Sequence[Step], rng: Random
) -> Optional[List[Dict[str, Any]]]:
    """None where other operations with the same constants give the same on all inputs."""
    words = DIALECTS[part.family]
    inputs = [_argument(part.family, rng) for _ in range(CASES)]
    right = _results(name, part.solution(name, steps), inputs)
    constants = [constant for _, constant in steps]
    signs = tuple(words[word] for word, _ in steps)
    for other in product(words.values(), repeat=STEPS):
        pairs = list(zip(other, constants))
        if other != signs and all(_apply(pairs, x) == y for x, y in zip(inputs, right)):
            return None
    return [{"args": [given], "expected": wanted} for given, wanted in zip(inputs, right)]


def _argument(family: str, rng: Random) -> Any:
    if family == "numbers":
        return rng.randint(-500, 5000)
    return [rng.randint(-50, 500) for _ in range(4)]


def _results(name: str, solution: str, inputs: Sequence[Any]) -> List[Any]:
    """What the program itself answers."""
    scope: Dict[str, Any] = {}
    exec(prompt_of(name, []) + solution, scope)
    return [scope["f"](given) for given in inputs]


def _apply(operations: Sequence[Step], value: Any) -> Any:
    if isinstance(value, list):
        return [_apply(operations, member) for member in value]
    for sign, constant in operations:
        value = COMPUTE[sign](value, constant)
    return value


def write_lines(path: Path, rows: Sequence[Dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        write_lines(folder / f"{family}.jsonl", training_rows(family))
    for file in TASK_FILES:
        tasks = [task for family in FAMILIES for task in tasks_of(family, file)]
        write_lines(folder / f"{file}.jsonl", tasks)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "tasks")
