"""Schemas from type hints, checks by them, and values to and from JSON."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Dict,
    FrozenSet,
    List,
    Literal,
    Mapping,
    NewType,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypedDict,
    Union,
)

import pytest

from cjm_worker import FileRef, wire_type
from cjm_worker.schema import UnsupportedType, decode, schema_of, to_plain
from cjm_worker.validate import describe_problems, find_problems, paths_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    """A place."""

    x: float
    y: float = 0.0
    label: Optional[str] = field(default=None, metadata={"maxLength": 3, "unknown": 1})


@dataclass
class Tree:
    value: int
    children: "List[Tree]" = field(default_factory=list)


class Options(TypedDict, total=False):
    depth: int


class Request(Options):
    name: str


@wire_type("test.score")
@dataclass
class Score:
    points: Dict[str, int]


UserId = NewType("UserId", int)


def bare(hint: Any) -> Any:
    schema = schema_of(hint)
    assert schema.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    return schema


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (Path, {"type": "string"}),
        (UserId, {"type": "integer"}),
        (List[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (Set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (Dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Mapping[str, Any], {"type": "object", "additionalProperties": True}),
        (dict, {"type": "object"}),
        (Literal["a", 2], {"enum": ["a", 2]}),
        (Literal["a"], {"const": "a"}),
        (Colour, {"enum": ["red", "blue"]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (
            Annotated[int, {"minimum": 1}, "How many"],
            {"type": "integer", "minimum": 1, "description": "How many"},
        ),
        (
            Tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (Tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    ],
    ids=str,
)
def test_a_type_hint_gives_a_schema(hint: Any, schema: Any) -> None:
    assert bare(hint) == schema


def test_a_dataclass_gives_a_closed_object() -> None:
    assert bare(Point) == {
        "type": "object",
        "description": "A place.",
        "properties": {
            "x": {"type": "number"},
            "y": {"type": "number", "default": 0.0},
            "label": {"anyOf": [{"type": "string"}, {"type": "null"}], "maxLength": 3},
        },
        "required": ["x"],
        "additionalProperties": False,
    }


def test_a_typed_dict_knows_what_is_required() -> None:
    assert bare(Request)["required"] == ["name"]
    assert set(bare(Request)["properties"]) == {"depth", "name"}


def test_a_recursive_type_refers_to_itself() -> None:
    schema = schema_of(Tree)
    assert schema["$ref"] == "#/$defs/Tree"
    good = {"value": 1, "children": [{"value": 2, "children": []}]}
    assert find_problems(good, schema) == []
    bad = {"value": 1, "children": [{"value": "2"}]}
    assert paths_of(find_problems(bad, schema)) == ["children.0.value"]


@pytest.mark.parametrize("hint", [bytes, complex, Dict[int, str], List[bytes], lambda: 0], ids=str)
def test_a_type_without_a_json_form_is_refused(hint: Any) -> None:
    with pytest.raises(UnsupportedType, match="value"):
        schema_of(hint, "value")


@pytest.mark.parametrize(
    ("hint", "json", "value"),
    [
        (Point, {"x": 1}, Point(1.0)),
        (List[Point], [{"x": 1, "label": "a"}], [Point(1.0, 0.0, "a")]),
        (Optional[Point], None, None),
        (Optional[Point], {"x": 1}, Point(1.0)),
        (Union[int, Point], {"x": 1}, Point(1.0)),
        (Union[int, Point], 3, 3),
        (Colour, "red", Colour.RED),
        (Path, "/a/b", Path("/a/b")),
        (Tuple[int, ...], [1, 2], (1, 2)),
        (Set[str], ["a"], {"a"}),
        (FrozenSet[str], ["a"], frozenset("a")),
        (Dict[str, Colour], {"k": "blue"}, {"k": Colour.BLUE}),
        (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, [Tree(2)])),
        (Request, {"name": "n"}, {"name": "n"}),
        (int, 2.0, 2),
        (float, 2, 2.0),
        (Score, {"__wire__": "test.score", "data": {"points": {"a": 1}}}, Score({"a": 1})),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
    ],
    ids=str,
)
def test_json_becomes_the_value_its_hint_names(hint: Any, json: Any, value: Any) -> None:
    assert find_problems(json, schema_of(hint)) == []
    decoded = decode(hint, json)
    assert decoded == value and type(decoded) is type(value)


def test_values_become_json() -> None:
    file = FileRef("/a", 1, "sha256:" + "0" * 64)
    value = [Point(1.0), Colour.RED, Path("/a"), {1}, (2,), file, {"k": [Score({"a": 1})]}]
    assert to_plain(value) == [
        {"x": 1.0, "y": 0.0, "label": None},
        "red",
        "/a",
        [1],
        [2],
        {"__wire__": "file.ref", "data": {"path": "/a", "size": 1, "sha256": file.sha256}},
        {"k": [{"__wire__": "test.score", "data": {"points": {"a": 1}}}]},
    ]


@pytest.mark.parametrize("value", [b"x", object(), {1: 2}, 1j])
def test_a_value_without_a_json_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        to_plain([value])


def test_every_problem_is_named_at_once() -> None:
    value = {"y": "north", "z": 1, "label": 5}
    problems = find_problems(value, schema_of(Point))
    assert paths_of(problems) == ["x", "y", "z", "label"]
    assert "x is required" in describe_problems(problems)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, [1, 1.0, -5], [1.5, "1", True, None, float("nan"), float("inf")]),
        ({"type": "number"}, [1, 1.5], ["1", False, float("inf")]),
        ({"type": ["string", "null"]}, ["", None], [0]),
        ({"minimum": 1, "exclusiveMaximum": 3}, [1, 2.9], [0.9, 3]),
        ({"exclusiveMinimum": 1, "maximum": 3}, [1.1, 3], [1, 3.1]),
        ({"multipleOf": 0.1}, [0.3, 1], [0.25]),
        ({"type": "string", "minLength": 1, "maxLength": 2}, ["a", "🦜🦜"], ["", "abc"]),
        ({"pattern": "^a+$"}, ["aa"], ["ab"]),
        ({"enum": [1, "a"]}, [1, "a"], [True, 2]),
        ({"const": 0}, [0], [False, 1]),
        ({"minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
        ({"uniqueItems": True}, [[1, 2], [[1], [2]]], [[1, 1], [{"a": 1}, {"a": 1.0}]]),
        ({"prefixItems": [{"type": "string"}], "items": False}, [["a"], []], [[1], ["a", 2]]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, ["", None], [1]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1], [3]),
        ({"additionalProperties": {"type": "integer"}}, [{"a": 1}], [{"a": "1"}]),
        ({"propertyNames": {"maxLength": 1}}, [{"a": 1}], [{"ab": 1}]),
    ],
    ids=str,
)
def test_each_keyword_is_checked(schema: Any, good: List[Any], bad: List[Any]) -> None:
    for value in good:
        assert find_problems(value, schema) == [], value
    for value in bad:
        assert find_problems(value, schema) != [], value
