"""Checks a JSON value against a JSON Schema and names every bad field at once.

Knows the keywords this SDK and zod write: enough for the schemas of a manifest, not a general
validator. A keyword it does not know is an annotation, as the specification has it.
"""

import re
from typing import Any, Callable, Dict, List, NamedTuple

Schema = Dict[str, Any]


class Problem(NamedTuple):
    """One thing wrong with a value; ``path`` is dotted, empty for the value itself."""

    path: str
    message: str


def is_finite_number(value: Any) -> bool:
    """True for a JSON number, which NaN, infinities and booleans are not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or value - value == 0


_TYPES: Dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "number": is_finite_number,
    "integer": lambda value: is_finite_number(value) and value == int(value),
}


def type_name(value: Any) -> str:
    """The JSON name of a value's type."""
    order = ("string", "boolean", "null", "object", "array", "number")
    return next((name for name in order if _TYPES[name](value)), type(value).__name__)


def find_problems(value: Any, schema: Schema) -> List[Problem]:
    """Everything wrong with a value, in the order of the schema; empty when it is valid."""
    return _Checker(schema).check(value, schema, "")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


class _Checker:
    def __init__(self, root: Schema) -> None:
        self._root = root

    def check(self, value: Any, schema: Any, path: str) -> List[Problem]:
        if schema is True or not schema:
            return [] if schema is not False else [Problem(path, "is not allowed")]
        if "$ref" in schema:
            return self.check(value, self._resolve(schema["$ref"]), path)
        types = schema.get("type")
        if types is not None:
            names = [types] if isinstance(types, str) else types
            if not any(_TYPES[name](value) for name in names):
                expected = " or ".join(names)
                return [Problem(path, f"expected {expected}, got {type_name(value)}")]
        problems = self._combinations(value, schema, path)
        problems += _scalar_problems(value, schema, path)
        if isinstance(value, dict):
            problems += self._object(value, schema, path)
        elif isinstance(value, list):
            problems += self._array(value, schema, path)
        return problems

    def _resolve(self, reference: str) -> Any:
        target: Any = self._root
        for part in reference.lstrip("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")] if part else target
        return target

    def _combinations(self, value: Any, schema: Schema, path: str) -> List[Problem]:
        problems: List[Problem] = []
        for part in schema.get("allOf", ()):
            problems += self.check(value, part, path)
        for keyword in ("anyOf", "oneOf"):
            options = schema.get(keyword)
            if options:
                problems += self._any_of(value, options, path)
        return problems

    def _any_of(self, value: Any, options: List[Schema], path: str) -> List[Problem]:
        attempts = [self.check(value, option, path) for option in options]
        if any(not attempt for attempt in attempts):
            return []
        # The option that got furthest into the value is the one that was meant.
        nearest = [attempt for attempt in attempts if attempt[0].path != path]
        if len(nearest) == 1:
            return nearest[0]
        wanted = " or ".join(_describe(option) for option in options)
        return [Problem(path, f"expected {wanted}, got {type_name(value)}")]

    def _object(self, value: Dict[str, Any], schema: Schema, path: str) -> List[Problem]:
        properties: Dict[str, Schema] = schema.get("properties", {})
        problems = [
            Problem(_join(path, name), "is required")
            for name in schema.get("required", ())
            if name not in value
        ]
        rest = schema.get("additionalProperties", True)
        for key, item in value.items():
            where = _join(path, key)
            if key in properties:
                problems += self.check(item, properties[key], where)
            elif rest is False:
                problems.append(Problem(where, "is unknown"))
            elif rest is not True:
                problems += self.check(item, rest, where)
            if "propertyNames" in schema:
                problems += self.check(key, schema["propertyNames"], where)
        return problems

    def _array(self, value: List[Any], schema: Schema, path: str) -> List[Problem]:
        prefix: List[Schema] = schema.get("prefixItems", [])
        problems: List[Problem] = []
        for index, item in enumerate(value):
            part = prefix[index] if index < len(prefix) else schema.get("items", True)
            if part is not True:
                problems += self.check(item, part, _join(path, index))
        problems += _length_problems(len(value), schema, ("minItems", "maxItems", "items"), path)
        if schema.get("uniqueItems") and _has_duplicates(value):
            problems.append(Problem(path, "has the same item twice"))
        return problems


def _describe(option: Schema) -> str:
    if "const" in option:
        return repr(option["const"])
    types = option.get("type", "another value")
    return types if isinstance(types, str) else " or ".join(types)


def _has_duplicates(items: List[Any]) -> bool:
    from .canonical import canonical_json

    return len({canonical_json(item) for item in items}) != len(items)


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _scalar_problems(value: Any, schema: Schema, path: str) -> List[Problem]:
    problems: List[Problem] = []
    if "const" in schema and not _same(value, schema["const"]):
        problems.append(Problem(path, f"must be {schema['const']!r}"))
    if "enum" in schema and not any(_same(value, option) for option in schema["enum"]):
        options = ", ".join(repr(option) for option in schema["enum"])
        problems.append(Problem(path, f"must be one of {options}"))
    if isinstance(value, str):
        names = ("minLength", "maxLength", "characters")
        problems += _length_problems(len(value), schema, names, path)
        if "pattern" in schema and not re.search(schema["pattern"], value):
            problems.append(Problem(path, f"does not match {schema['pattern']}"))
    elif is_finite_number(value):
        problems += _range_problems(value, schema, path)
    return problems


def _length_problems(
    length: int, schema: Schema, names: "tuple[str, str, str]", path: str
) -> List[Problem]:
    least, most, unit = names
    if least in schema and length < schema[least]:
        return [Problem(path, f"has {length} {unit}, the least is {schema[least]}")]
    if most in schema and length > schema[most]:
        return [Problem(path, f"has {length} {unit}, the most is {schema[most]}")]
    return []


def _is_multiple(value: float, step: float) -> bool:
    return abs(value / step - round(value / step)) < 1e-9


def _range_problems(value: float, schema: Schema, path: str) -> List[Problem]:
    checks = (
        ("minimum", lambda limit: value >= limit, "must be at least"),
        ("maximum", lambda limit: value <= limit, "must be at most"),
        ("exclusiveMinimum", lambda limit: value > limit, "must be more than"),
        ("exclusiveMaximum", lambda limit: value < limit, "must be less than"),
        ("multipleOf", lambda step: _is_multiple(value, step), "must be a multiple of"),
    )
    return [
        Problem(path, f"{words} {schema[keyword]}")
        for keyword, holds, words in checks
        if keyword in schema and not holds(schema[keyword])
    ]


def describe_problems(problems: List[Problem]) -> str:
    """One line that names every bad field."""
    shown = [f"{problem.path or 'value'} {problem.message}" for problem in problems[:20]]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return "; ".join(shown)


def paths_of(problems: List[Problem]) -> List[str]:
    """The distinct paths, in order; the value itself is called ``value``."""
    return list(dict.fromkeys(problem.path or "value" for problem in problems))
