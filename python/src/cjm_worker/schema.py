"""JSON Schema (draft 2020-12) from type hints, and JSON values to and from the types they name.

One :class:`Codec` per type: ``schema`` describes it, ``decode`` turns checked JSON into the Python
value, ``to_plain`` turns a Python value into JSON. Checking is done by :mod:`cjm_worker.validate`.
"""

import dataclasses
import enum
import types
import typing
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any, Callable, Dict, List, Mapping, Tuple, Union

from .wire import WIRE_DATA_KEY, WIRE_KIND_KEY, wire_decode, wire_encode, wire_kind_of

Schema = Dict[str, Any]

#: Keys of a dataclass field's metadata (or of a dict in ``Annotated``) that go into its schema.
SCHEMA_KEYS = frozenset(
    "title description minimum maximum exclusiveMinimum exclusiveMaximum multipleOf enum minLength "
    "maxLength pattern format minItems maxItems uniqueItems examples reload_trigger".split()
)

_SCALARS: Mapping[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Path: {"type": "string"},
    PurePath: {"type": "string"},
    datetime: {"type": "string", "format": "date-time"},
}
_UNION_TYPES = (Union, getattr(types, "UnionType", Union))
_ANNOTATED: Any = type(typing.Annotated[int, ""])
_REQUIRED_MARKS = tuple(
    getattr(typing, name) for name in ("Required", "NotRequired") if hasattr(typing, name)
)


class UnsupportedType(TypeError):
    """A type hint that has no JSON form; the message names where it stands."""


def is_typed_dict(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, dict) and hasattr(hint, "__total__")


def _is_record(hint: Any) -> bool:
    return is_typed_dict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def _literal_schema(values: Tuple[Any, ...]) -> Schema:
    return {"const": values[0]} if len(values) == 1 else {"enum": list(values)}


def _union_schema(options: List[Schema]) -> Schema:
    flat = [item for option in options for item in option.get("anyOf", [option])]
    if all(set(option) == {"type"} for option in flat):
        types = list(dict.fromkeys(option["type"] for option in flat))
        return {"type": types[0]} if len(types) == 1 else {"anyOf": [{"type": t} for t in types]}
    return {"anyOf": flat}


def _extra_schema(extras: Tuple[Any, ...]) -> Schema:
    found: Schema = {}
    for extra in extras:
        if isinstance(extra, str):
            found["description"] = extra
        elif isinstance(extra, Mapping):
            found.update({key: extra[key] for key in extra if key in SCHEMA_KEYS})
    return found


class SchemaBuilder:
    """Builds schemas of types; a recursive type becomes a ``$ref`` into ``$defs``."""

    def __init__(self) -> None:
        self._open: List[Any] = []
        self._recursive: Dict[Any, str] = {}
        self.definitions: Dict[str, Schema] = {}

    def build(self, hint: Any, where: str) -> Schema:
        """The schema of one type hint; ``where`` names the place for error messages."""
        if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
            return {}
        if hint is None:
            return {"type": "null"}
        if isinstance(hint, _ANNOTATED):
            return {**self.build(hint.__origin__, where), **_extra_schema(hint.__metadata__)}
        if isinstance(hint, typing.Hashable) and hint in _SCALARS:
            return dict(_SCALARS[hint])
        supertype = getattr(hint, "__supertype__", None)
        if supertype is not None:
            return self.build(supertype, where)
        origin = typing.get_origin(hint)
        if origin is not None:
            return self._generic(origin, typing.get_args(hint), where)
        return self._class(hint, where)

    def _generic(self, origin: Any, arguments: Tuple[Any, ...], where: str) -> Schema:
        if origin in _REQUIRED_MARKS:
            return self.build(arguments[0], where)
        if origin in _UNION_TYPES:
            return _union_schema([self.build(option, where) for option in arguments])
        if origin is typing.Literal:
            return _literal_schema(arguments)
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            items = [self.build(item, f"{where}[{i}]") for i, item in enumerate(arguments)]
            return {
                "type": "array",
                "prefixItems": items,
                "minItems": len(items),
                "maxItems": len(items),
            }
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(arguments, where)
        if isinstance(origin, type) and issubclass(origin, typing.Collection):
            schema: Schema = {"type": "array", "items": self.build(arguments[0], f"{where}[]")}
            if issubclass(origin, typing.AbstractSet):
                schema["uniqueItems"] = True
            return schema
        raise UnsupportedType(f"{where}: {origin!r} has no JSON form")

    def _mapping(self, arguments: Tuple[Any, ...], where: str) -> Schema:
        if arguments[0] not in (str, Any):
            raise UnsupportedType(f"{where}: the keys of a JSON object are strings")
        values = self.build(arguments[1], f"{where}.*")
        return {"type": "object", "additionalProperties": values or True}

    def _class(self, hint: Any, where: str) -> Schema:
        if hint in (list, tuple):
            return {"type": "array"}
        if hint in (set, frozenset):
            return {"type": "array", "uniqueItems": True}
        if hint is dict:
            return {"type": "object"}
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return _literal_schema(tuple(member.value for member in hint))
        if _is_record(hint):
            return self._record(hint)
        advice = "; return bytes as a FileRef" if hint in (bytes, bytearray) else ""
        raise UnsupportedType(f"{where}: {hint!r} has no JSON form{advice}")

    def _record(self, hint: Any) -> Schema:
        if hint in self._open:
            self._recursive[hint] = hint.__name__
            return {"$ref": f"#/$defs/{hint.__name__}"}
        self._open.append(hint)
        schema = record_schema(hint, self)
        self._open.pop()
        kind = wire_kind_of(hint)
        if kind is not None:
            schema = {
                "type": "object",
                "properties": {WIRE_KIND_KEY: {"const": kind}, WIRE_DATA_KEY: schema},
                "required": [WIRE_KIND_KEY, WIRE_DATA_KEY],
                "additionalProperties": False,
            }
        if hint in self._recursive:
            self.definitions[hint.__name__] = schema
            return {"$ref": f"#/$defs/{hint.__name__}"}
        return schema


@dataclasses.dataclass(frozen=True)
class Member:
    """One field of a record type or one parameter of an action."""

    name: str
    hint: Any
    required: bool
    default: Any = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def members_of(hint: Any) -> List[Member]:
    """The fields of a dataclass or TypedDict, in the order they are declared."""
    hints = typing.get_type_hints(hint, include_extras=True)
    if is_typed_dict(hint):
        required: "frozenset[str]" = getattr(hint, "__required_keys__", frozenset(hints))
        return [Member(key, hints[key], _is_required(hints[key], key in required)) for key in hints]
    members: List[Member] = []
    for field in dataclasses.fields(hint):
        if not field.init:
            continue
        value, required_field = None, False
        if field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            required_field = True
        members.append(Member(field.name, hints[field.name], required_field, value, field.metadata))
    return members


def _is_required(hint: Any, otherwise: bool) -> bool:
    """With postponed annotations only the evaluated hint knows ``NotRequired``."""
    origin = typing.get_origin(hint)
    if origin in _REQUIRED_MARKS:
        return bool(origin is getattr(typing, "Required", None))
    return otherwise


def object_schema(members: List[Member], builder: SchemaBuilder) -> Schema:
    """A closed object with these members."""
    properties: Dict[str, Schema] = {}
    for member in members:
        schema = builder.build(member.hint, member.name)
        schema.update(_extra_schema((member.metadata,)))
        if not member.required and member.default is not None:
            schema["default"] = to_plain(member.default)
        properties[member.name] = schema
    result: Schema = {"type": "object", "properties": properties}
    required = [member.name for member in members if member.required]
    if required:
        result["required"] = required
    result["additionalProperties"] = False
    return result


def record_schema(hint: Any, builder: SchemaBuilder) -> Schema:
    schema = object_schema(members_of(hint), builder)
    documentation = (hint.__doc__ or "").strip()
    # The documentation dataclass writes by itself is the constructor's signature.
    if documentation and not documentation.startswith(f"{hint.__name__}("):
        schema["description"] = documentation.splitlines()[0]
    return schema


def finish(schema: Schema, builder: SchemaBuilder) -> Schema:
    """The schema as a document of its own."""
    if builder.definitions:
        schema = {**schema, "$defs": builder.definitions}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_of(hint: Any, where: str = "value") -> Schema:
    """The schema document of one type hint."""
    builder = SchemaBuilder()
    return finish(builder.build(hint, where), builder)


def decode(hint: Any, value: Any) -> Any:
    """The Python value of checked JSON; what the hint does not name stays as it is."""
    if isinstance(hint, _ANNOTATED):
        return decode(hint.__origin__, value)
    supertype = getattr(hint, "__supertype__", None)
    if supertype is not None:
        return decode(supertype, value)
    origin = typing.get_origin(hint)
    if origin is not None:
        return _decode_generic(origin, typing.get_args(hint), value)
    if hint is float and isinstance(value, int):
        return float(value)
    if hint is int and isinstance(value, float):
        return int(value)
    if not isinstance(hint, type) or isinstance(value, bool):
        return value
    return _decode_class(hint, value)


def _decode_class(hint: type, value: Any) -> Any:
    if isinstance(value, str) and issubclass(hint, PurePath):
        return hint(value)
    if isinstance(value, str) and hint is datetime:
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    if issubclass(hint, enum.Enum):
        return hint(value)
    if issubclass(hint, (set, frozenset, tuple)) and isinstance(value, list):
        return hint(value)
    if isinstance(value, dict):
        if wire_kind_of(hint) is not None:
            return wire_decode(value, hint)
        if _is_record(hint):
            return decode_record(hint, value)
    return value


def _decode_generic(origin: Any, arguments: Tuple[Any, ...], value: Any) -> Any:
    if origin in _REQUIRED_MARKS:
        return decode(arguments[0], value)
    if origin in _UNION_TYPES:
        return _decode_union(arguments, value)
    if isinstance(value, list):
        if origin is tuple and arguments[-1] is not Ellipsis:
            return tuple(decode(hint, item) for hint, item in zip(arguments, value))
        items = [decode(arguments[0], item) for item in value]
        make: Callable[[List[Any]], Any] = list
        if origin in (tuple, set, frozenset):
            make = origin
        elif isinstance(origin, type) and issubclass(origin, typing.AbstractSet):
            make = set
        return make(items)
    if isinstance(value, dict) and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: decode(arguments[1], item) for key, item in value.items()}
    return value


def _decode_union(options: Tuple[Any, ...], value: Any) -> Any:
    from .validate import find_problems

    if value is None:
        return None
    real = [option for option in options if option is not type(None)]
    if len(real) == 1:
        return decode(real[0], value)
    for option in real:
        if not find_problems(value, schema_of(option)):
            return decode(option, value)
    return value


def decode_record(hint: Any, value: Dict[str, Any]) -> Any:
    """A dataclass instance, or a dict for a TypedDict, from a checked object."""
    hints = {member.name: member.hint for member in members_of(hint)}
    decoded = {key: decode(hints.get(key, Any), item) for key, item in value.items()}
    return decoded if is_typed_dict(hint) else hint(**decoded)


def to_plain(value: Any) -> Any:
    """The JSON form of a Python value: records, enums, paths, times and wire types included.

    Raises TypeError naming the type for a value that has none.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, dict):
        return {_key(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    return _object_to_plain(value)


def _object_to_plain(value: Any) -> Any:
    if wire_kind_of(type(value)) is not None:
        encoded = wire_encode(value)
        return {WIRE_KIND_KEY: encoded[WIRE_KIND_KEY], WIRE_DATA_KEY: to_plain(encoded["data"])}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    item = getattr(value, "item", None)
    # NumPy and torch scalars: one number in an object of its own.
    if callable(item) and getattr(value, "ndim", None) == 0:
        return to_plain(item())
    advice = "; return bytes as a FileRef" if isinstance(value, (bytes, bytearray)) else ""
    raise TypeError(f"a {type(value).__name__} has no JSON form{advice}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the keys of a JSON object are strings, not {type(key).__name__}")
    return key
