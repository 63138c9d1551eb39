"""Tells fast whether a JSON value is valid; ``validate`` says what is wrong with one."""

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from .validate import Schema, find_problems, is_finite_number

Accepts = Callable[[Any], bool]

_TYPES: Mapping[str, Tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}
_ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "deprecated", "readOnly", "$schema")
)
_KNOWN = _ANNOTATIONS | {"type", "properties", "required", "additionalProperties", "items"}


def acceptor(schema: Schema) -> Accepts:
    """A predicate: true for exactly the values in which ``find_problems`` finds nothing."""
    compiled = _compile(schema)
    return compiled or (lambda value: not find_problems(value, schema))


def _compile(schema: Any) -> Optional[Accepts]:
    """`None` for a schema with a keyword that is not known here."""
    if schema is True or schema == {}:
        return _anything
    if not isinstance(schema, dict) or not _KNOWN.issuperset(schema):
        return None
    kind = schema.get("type")
    if kind == "object":
        return _object(schema)
    if kind == "array":
        return _array(schema)
    if not isinstance(kind, str):
        return _anything if kind is None and _ANNOTATIONS.issuperset(schema) else None
    if kind == "number":
        return is_finite_number
    if kind == "integer":
        return lambda value: is_finite_number(value) and value == int(value)
    classes = _TYPES.get(kind)
    return None if classes is None else lambda value: isinstance(value, classes)


def _anything(value: Any) -> bool:
    return True


def _object(schema: Schema) -> Optional[Accepts]:
    required: List[str] = schema.get("required", [])
    properties: Dict[str, Accepts] = {}
    for name, part in schema.get("properties", {}).items():
        compiled = _compile(part)
        if compiled is None:
            return None
        properties[name] = compiled
    other = schema.get("additionalProperties", True)
    rest = None if other is False else _compile(other)
    if rest is None and other is not False:
        return None

    def accepts(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        for name in required:
            if name not in value:
                return False
        for key, item in value.items():
            check = properties.get(key, rest)
            if check is None or not check(item):
                return False
        return True

    return accepts


def _array(schema: Schema) -> Optional[Accepts]:
    items = _compile(schema.get("items", True))
    if items is None:
        return None
    check = items
    return lambda value: isinstance(value, list) and all(check(item) for item in value)
