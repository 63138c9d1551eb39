"""Rows of a data set: what they may look like, and every bad one by its line number."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from cjm_worker import CapabilityInputError

MAX_PROBLEMS = 20
#: What the original puts before a trajectory's task.
TRAJECTORY_SYSTEM = "You are a Python code generator. Output only code, no explanation."

Message = Dict[str, str]


@dataclass(frozen=True)
class Chat:
    """A conversation; assistant turns from ``first_taught`` on are what it teaches."""

    messages: List[Message]
    first_taught: int = 0


@dataclass(frozen=True)
class Completion:
    """A prompt and what follows it, without a chat template."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Row:
    """One example and where it stands: ``line`` counts from 1."""

    line: int
    content: Union[Chat, Completion]


class BadRow(ValueError):
    """What is wrong with one row, without its line number."""


def read_rows(path: str) -> Tuple[List[Row], str]:
    """Every row of a data set and a sentence on what was passed over, empty when nothing was.

    A ``.jsonl`` file has one example per line: ``messages``, ``prompt`` and ``completion``,
    ``text``, or a recorded trajectory. A ``.json`` file is one trajectory, a folder is a folder of
    them. Raises CapabilityInputError that names every bad line, at most 20 of them.
    """
    problems: List[str] = []
    rows: List[Row] = []
    skipped = 0
    for line, where, text in _records(path):
        try:
            content = _parse(text)
        except BadRow as error:
            problems.append(f"{where}: {error}")
            continue
        if content is None:
            skipped += 1
        else:
            rows.append(Row(line, content))
    refuse_rows(path, problems)
    if not rows:
        passed = f"; {skipped} trajectories did not succeed" if skipped else ""
        raise CapabilityInputError(f"{path} has no rows{passed}", fields_invalid=["dataset"])
    return rows, f"{skipped} trajectories that did not succeed" if skipped else ""


def refuse_rows(path: str, problems: List[str]) -> None:
    """Raises CapabilityInputError for a list of ``line N: what``; does nothing when it is empty."""
    if not problems:
        return
    shown = "\n".join(problems[:MAX_PROBLEMS])
    more = len(problems) - MAX_PROBLEMS
    rest = f"\nand {more} more" if more > 0 else ""
    raise CapabilityInputError(
        f"{path} has {len(problems)} bad rows\n{shown}{rest}", fields_invalid=["dataset"]
    )


def _records(path: str) -> Iterator[Tuple[int, str, bytes]]:
    source = Path(path)
    if source.is_dir():
        for number, file in enumerate(sorted(source.glob("*.json")), 1):
            yield number, file.name, file.read_bytes()
        return
    if not source.is_file():
        raise CapabilityInputError(f"no data set at {path}", fields_invalid=["dataset"])
    if source.suffix == ".json":
        yield 1, "the file", source.read_bytes()
        return
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, f"line {number}", line


def _parse(text: bytes) -> Optional[Union[Chat, Completion]]:
    try:
        row = json.loads(text)
    except UnicodeDecodeError as error:
        raise BadRow(f"is not UTF-8 at byte {error.start}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadRow(f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRow("is not an object")
    for keys, read in _FORMS.items():
        if all(key in row for key in keys):
            return read(row)
    raise BadRow(
        "has neither messages, nor prompt and completion, nor text; its keys are "
        + (", ".join(sorted(map(str, row))) or "none")
    )


def _messages(value: Any, name: str) -> List[Message]:
    if not isinstance(value, list) or not value:
        raise BadRow(f"{name} is not a list of messages")
    found: List[Message] = []
    for index, item in enumerate(value):
        role = item.get("role") if isinstance(item, dict) else None
        content = item.get("content") if isinstance(item, dict) else None
        if not isinstance(role, str) or not role:
            raise BadRow(f"{name}[{index}].role is not text")
        if not isinstance(content, str):
            raise BadRow(f"{name}[{index}].content is not text")
        _encodable(content, f"{name}[{index}].content")
        found.append({"role": role, "content": content})
    return found


def _encodable(text: str, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow(f"{name} has half a surrogate pair at {error.start}") from error


def _taught(messages: List[Message], first: int) -> Chat:
    answers = [item["content"] for item in messages[first:] if item["role"] == "assistant"]
    if not answers:
        raise BadRow("has no assistant message")
    if not any(answer.strip() for answer in answers):
        raise BadRow("has only empty assistant messages")
    return Chat(messages, first)


def _chat(row: Mapping[str, Any]) -> Chat:
    return _taught(_messages(row["messages"], "messages"), 0)


def _completion(row: Mapping[str, Any]) -> Union[Chat, Completion]:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) or isinstance(completion, list):
        before = _messages(prompt, "prompt")
        return _taught([*before, *_messages(completion, "completion")], len(before))
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise BadRow("prompt and completion are both text or both messages")
    if not completion:
        raise BadRow("completion is empty")
    _encodable(prompt, "prompt")
    _encodable(completion, "completion")
    return Completion(prompt, completion)


def _text(row: Mapping[str, Any]) -> Completion:
    if not isinstance(row["text"], str) or not row["text"]:
        raise BadRow("text is not text, or empty")
    _encodable(row["text"], "text")
    return Completion("", row["text"])


def _trajectory(row: Mapping[str, Any]) -> Optional[Chat]:
    """The last step whose tests passed, of a session that succeeded; None for any other."""
    steps = row["steps"]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise BadRow("steps is not a list of objects")
    if row["outcome"] != "success":
        return None
    passed = [step for step in steps if step.get("tests_passed")]
    if not passed:
        return None
    task, code = row.get("task_description", ""), passed[-1].get("generated_code", "")
    if not isinstance(task, str) or not isinstance(code, str) or not code.strip():
        raise BadRow("its last passing step has no generated_code")
    pairs = (("system", TRAJECTORY_SYSTEM), ("user", task), ("assistant", code))
    return Chat([{"role": role, "content": text} for role, text in pairs])


_FORMS: Mapping[
    Tuple[str, ...], Callable[[Mapping[str, Any]], Optional[Union[Chat, Completion]]]
] = {
    ("messages",): _chat,
    ("prompt", "completion"): _completion,
    ("steps", "outcome"): _trajectory,
    ("text",): _text,
}
