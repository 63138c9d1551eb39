"""The fast check says yes to exactly the values the slow one finds nothing wrong with."""

import itertools
from typing import Any

import pytest

from cjm_worker.accept import acceptor
from cjm_worker.validate import find_problems

VALUES: "list[Any]" = [
    None,
    True,
    False,
    0,
    1.0,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "text",
    [],
    [1],
    ["a", 1],
    [[1]],
    {},
    {"a": 1},
    {"a": "x", "b": 2},
    {"b": 2},
    {"a": {"a": 1}},
    {"a": None, "c": []},
]
PARTS: "list[Any]" = [
    True,
    False,
    {},
    {"description": "anything"},
    {"type": "string"},
    {"type": "number"},
    {"type": "integer"},
    {"type": "boolean", "default": True},
    {"type": "null"},
    {"type": ["string", "null"]},
    {"type": "array"},
    {"type": "string", "minLength": 1},
    {"enum": [1, "a"]},
    {"anyOf": [{"type": "string"}, {"type": "null"}]},
]
SCHEMAS: "list[Any]" = [
    *PARTS,
    *({"type": "array", "items": part} for part in PARTS),
    *(
        {
            "type": "object",
            "properties": {"a": part},
            "required": names,
            "additionalProperties": rest,
        }
        for part, rest, names in itertools.product(
            PARTS, [True, False, {"type": "number"}], [[], ["a"]]
        )
    ),
    {"properties": {"a": {"type": "string"}}},
    {"type": "object", "properties": {"a": {"$ref": "#"}}},
    {"type": "object", "propertyNames": {"maxLength": 1}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_both_checks_agree(schema: Any) -> None:
    accepts = acceptor(schema)
    for value in VALUES:
        assert accepts(value) == (not find_problems(value, schema)), value
