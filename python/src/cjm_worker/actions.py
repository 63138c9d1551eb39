"""Typed callables: an action of a capability, or a method of a task adapter.

The input and output schemas come from the type hints; both sides are checked on every call.
"""

import inspect
import typing
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from .accept import acceptor
from .calls import Call
from .errors import CapabilityError, CapabilityInputError
from .schema import Member, SchemaBuilder, decode, finish, object_schema, schema_of, to_plain
from .validate import describe_problems, find_problems, paths_of

ACTION_MARK = "__cjm_action__"
_STREAMS = frozenset(("Iterator", "Iterable", "Generator"))
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ActionMark(typing.NamedTuple):
    """What ``@action`` writes on a method."""

    name: Optional[str]
    description: Optional[str]
    default: bool
    repeatable: bool


def action(
    function: Any = None,
    *,
    name: Optional[str] = None,
    description: Optional[str] = None,
    default: bool = False,
    repeatable: bool = False,
) -> Any:
    """Makes a method an action of its capability; a generator method streams its chunks.

    ``name`` is the method's name unless given, ``description`` the first line of its
    documentation. ``default`` marks the action a call means when it names none; ``repeatable`` says
    that the same inputs give the same outputs, so the host may answer from its cache.
    """
    mark = ActionMark(name, description, default, repeatable)

    def attach(method: Any) -> Any:
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise TypeError(f"action {method.__name__} is async; calls run in threads, use def")
        setattr(method, ACTION_MARK, mark)
        return method

    return attach if function is None else attach(function)


class TypedMethod:
    """One action or task method: its schemas, and how to call it with JSON."""

    def __init__(self, function: Callable[..., Any], mark: Optional[ActionMark] = None) -> None:
        chosen = mark or ActionMark(None, None, False, False)
        self.name = chosen.name or function.__name__
        self.attribute = function.__name__
        self.default = chosen.default
        self.repeatable = chosen.repeatable
        self.streaming = inspect.isgeneratorfunction(function)
        documentation = inspect.getdoc(function) or ""
        self.description = chosen.description or documentation.partition("\n\n")[0].replace(
            "\n", " "
        )
        hints = typing.get_type_hints(function, include_extras=True)
        self._read_parameters(function, hints)
        self._returns = _chunk_hint(hints.get("return", Any), self.streaming)
        self._builder_schemas()

    def _read_parameters(self, function: Callable[..., Any], hints: Dict[str, Any]) -> None:
        self._members: List[Member] = []
        self._call_parameter: Optional[str] = None
        self._rest: Optional[Any] = None
        parameters = list(inspect.signature(function).parameters.values())[1:]
        for parameter in parameters:
            hint = hints.get(parameter.name, Any)
            if hint is Call:
                self._call_parameter = parameter.name
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._rest = hint
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                raise TypeError(f"{self.name}: an action's inputs have names; *args is not allowed")
            else:
                required = parameter.default is inspect.Parameter.empty
                default = None if required else parameter.default
                self._members.append(Member(parameter.name, hint, required, default))
        self.params = [member.name for member in self._members]
        # Values of these hints are what JSON gives; decoding them would only cost time.
        self._decoded = {
            member.name: member.hint
            for member in self._members
            if member.hint not in (Any, str, bool, dict, list)
        }
        self._decodes_rest = self._rest not in (None, Any, str, bool)

    def _builder_schemas(self) -> None:
        builder = SchemaBuilder()
        schema = object_schema(self._members, builder)
        if self._rest is not None:
            schema["additionalProperties"] = builder.build(self._rest, "**") or True
        self.input_schema = finish(schema, builder)
        self.output_schema = schema_of(self._returns, f"the result of {self.name}")
        self._accepts_input = acceptor(self.input_schema)
        self._accepts_output = acceptor(self.output_schema)

    def to_manifest(self) -> Dict[str, Any]:
        """The action as ``code.actions`` of a manifest lists it."""
        return {
            "description": self.description,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "default": self.default,
            "streaming": self.streaming,
            "repeatable": self.repeatable,
        }

    def bind_input(self, args: List[Any], kwargs: Mapping[str, Any]) -> Dict[str, Any]:
        """The arguments a JSON call means; positional ones go to the parameters in order.

        Raises CapabilityInputError naming every bad field.
        """
        given = self._named(args, kwargs)
        if not self._accepts_input(given):
            problems = find_problems(given, self.input_schema)
            raise CapabilityInputError(
                f"{self.name}: {describe_problems(problems)}", fields_invalid=paths_of(problems)
            )
        for key in given if self._decodes_rest else self._decoded.keys() & given.keys():
            hint = self._decoded.get(key, Any if key in self.params else self._rest)
            try:
                given[key] = decode(hint, given[key])
            except (ValueError, TypeError) as error:
                raise CapabilityInputError(
                    f"{self.name}: {key} {error}", fields_invalid=[key]
                ) from error
        return given

    def _named(self, args: List[Any], kwargs: Mapping[str, Any]) -> Dict[str, Any]:
        if len(args) > len(self.params):
            message = f"{self.name} takes {len(self.params)} arguments, {len(args)} were given"
            raise CapabilityInputError(message, fields_invalid=["args"])
        given: Dict[str, Any] = dict(zip(self.params, args))
        twice = sorted(set(given) & set(kwargs))
        if twice:
            names = ", ".join(twice)
            raise CapabilityInputError(f"{self.name}: given twice: {names}", fields_invalid=twice)
        given.update(kwargs)
        return given

    def invoke(self, owner: Any, values: Dict[str, Any], call: Call) -> Any:
        """Calls the method; returns the result, or the generator of a streaming one."""
        if self._call_parameter is not None:
            values = {**values, self._call_parameter: call}
        return getattr(owner, self.attribute)(**values)

    def encode_output(self, result: Any) -> Any:
        """The checked JSON form of a result or of one chunk.

        Raises a ``CAPABILITY_OUTPUT`` error naming every bad field.
        """
        try:
            plain = to_plain(result)
        except TypeError as error:
            message = f"{self.name} returned a value without JSON form: {error}"
            raise CapabilityError(message, code="CAPABILITY_OUTPUT") from error
        if not self._accepts_output(plain):
            problems = find_problems(plain, self.output_schema)
            raise CapabilityError(
                f"{self.name} returned a wrong value: {describe_problems(problems)}",
                code="CAPABILITY_OUTPUT",
                fields_invalid=paths_of(problems),
            )
        return plain


def _chunk_hint(hint: Any, streaming: bool) -> Any:
    origin = typing.get_origin(hint)
    name = getattr(origin, "__name__", "")
    if not streaming or name not in _STREAMS:
        return hint
    arguments: Tuple[Any, ...] = typing.get_args(hint)
    return arguments[0] if arguments else Any


def actions_of(cls: type) -> Dict[str, TypedMethod]:
    """Every action of a class, inherited ones included, by name in the order of declaration.

    Raises TypeError for two actions of one name or two defaults; a single action is the default.
    """
    found: Dict[str, TypedMethod] = {}
    for attribute in _attributes_in_order(cls):
        function = getattr(cls, attribute, None)
        mark = getattr(function, ACTION_MARK, None)
        if mark is None or function is None:
            continue
        method = TypedMethod(function, mark)
        if method.name in found:
            raise TypeError(f"{cls.__name__} has two actions named {method.name}")
        found[method.name] = method
    defaults = [name for name, method in found.items() if method.default]
    if len(defaults) > 1:
        raise TypeError(f"{cls.__name__} has {len(defaults)} default actions: {defaults}")
    if len(found) == 1:
        next(iter(found.values())).default = True
    return found


def _attributes_in_order(cls: type) -> Iterator[str]:
    seen: Dict[str, None] = {}
    for base in reversed(cls.__mro__):
        seen.update(dict.fromkeys(vars(base)))
    return iter(seen)
