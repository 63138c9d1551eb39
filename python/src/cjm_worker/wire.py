"""Typed values at the worker boundary: ``{"__wire__": kind, "data": {...}}``."""

import dataclasses
from typing import Any, Callable, Dict, Optional, Type, TypeVar

WIRE_KIND_KEY = "__wire__"
WIRE_DATA_KEY = "data"

T = TypeVar("T")
_classes: Dict[str, type] = {}
_kinds: Dict[type, str] = {}


def wire_type(kind: str) -> Callable[[Type[T]], Type[T]]:
    """Registers a dataclass as the typed wire value ``kind``, e.g. ``"transcription.result"``.

    A class may bring its own ``to_dict`` and ``from_dict``; else its fields are taken as they are.
    Raises ValueError when another class already has the kind.
    """

    def register(cls: Type[T]) -> Type[T]:
        known = _classes.get(kind)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"wire kind {kind!r} belongs to {known.__qualname__}")
        _classes[kind] = cls
        _kinds[cls] = kind
        return cls

    return register


def wire_kind_of(cls: Any) -> Optional[str]:
    """The kind a class is registered under; subclasses are not."""
    return _kinds.get(cls) if isinstance(cls, type) else None


def wire_class_of(kind: str) -> Optional[type]:
    """The class registered for a kind."""
    return _classes.get(kind)


def wire_encode(value: Any) -> Any:
    """The tagged envelope of a registered value; any other value unchanged."""
    kind = wire_kind_of(type(value))
    if kind is None:
        return value
    to_dict = getattr(value, "to_dict", None)
    data: Any
    if callable(to_dict):
        data = to_dict()
    else:
        names = [field.name for field in dataclasses.fields(value)]
        data = {name: getattr(value, name) for name in names}
    return {WIRE_KIND_KEY: kind, WIRE_DATA_KEY: data}


def wire_decode(value: Any, expected: Optional[type] = None) -> Any:
    """The typed value of a tagged envelope.

    An unknown kind passes through unchanged, so a reader without the class still sees the data.
    Raises TypeError when a required field is missing.
    """
    if not isinstance(value, dict) or WIRE_KIND_KEY not in value:
        return value
    cls = expected or _classes.get(value[WIRE_KIND_KEY])
    if cls is None:
        return value
    data = value.get(WIRE_DATA_KEY) or {}
    from_dict = getattr(cls, "from_dict", None)
    if callable(from_dict):
        return from_dict(data)
    from .schema import decode_record, members_of

    known = {member.name for member in members_of(cls)}
    return decode_record(cls, {key: item for key, item in data.items() if key in known})
