"""The structural surface of a tool, and the task adapters that are matched against it."""

import importlib
import inspect
import logging
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Type

from .actions import TypedMethod
from .calls import Call
from .capability import Capability, TaskAdapter
from .errors import CapabilityError

_log = logging.getLogger("cjm_worker")


def load_attribute(spec: str) -> Any:
    """The object ``module:Name`` names. Raises ImportError or AttributeError."""
    module, _, name = spec.partition(":")
    if not module or not name:
        raise ImportError(f"{spec!r} is not of the form module:Class")
    return getattr(importlib.import_module(module), name)


def _method_entry(name: str, function: Callable[..., Any]) -> Dict[str, Any]:
    signature = inspect.signature(function)
    parameters = [
        parameter
        for parameter in list(signature.parameters.values())[1:]
        if parameter.annotation not in (Call, "Call")
    ]
    return {
        "name": name,
        "signature": str(signature.replace(parameters=parameters)),
        "params": [parameter.name for parameter in parameters],
    }


def structural_surface(cls: type, base: type = Capability) -> Dict[str, Any]:
    """The public members of a class, sorted by name; those of ``base`` only where overridden.

    Leaving the SDK's own members out keeps the drift witness the same when the SDK changes.
    """
    methods: List[Dict[str, Any]] = []
    # In the original these are properties of every tool, and its adapters look for them there.
    properties = ["name", "version"] if base is Capability else []
    attributes: Dict[str, str] = {}
    for name in sorted(dir(cls)):
        if name in properties:
            continue
        member = inspect.getattr_static(cls, name)
        if name.startswith("_") or member is inspect.getattr_static(base, name, None):
            continue
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if isinstance(member, property):
            properties.append(name)
        elif inspect.isfunction(member):
            methods.append(_method_entry(name, member))
        else:
            attributes[name] = type(member).__name__
    return {"methods": methods, "properties": sorted(properties), "attributes": attributes}


def protocol_members(adapter: Type[TaskAdapter]) -> Dict[str, Any]:
    """What an adapter needs of its tool: ``{"methods": [...], "properties": [...]}``."""
    methods: List[Dict[str, Any]] = [
        {"name": name, "signature": "", "params": []} for name in adapter.requires
    ]
    properties: List[str] = []
    protocol = adapter.required_tool_protocol
    if protocol is not None:
        surface = structural_surface(protocol, object)
        methods += surface["methods"]
        annotated: Mapping[str, Any] = getattr(protocol, "__annotations__", {})
        properties += [*surface["properties"], *annotated]
    return {"methods": methods, "properties": properties}


def missing_members(
    members: Mapping[str, Any], surface: Mapping[str, Any], tool: type
) -> List[str]:
    """What a tool lacks of a protocol; parameters match when the protocol's come first."""
    params = {method["name"]: method["params"] for method in surface["methods"]}
    missing: List[str] = []
    for method in members["methods"]:
        name, wanted = method["name"], method.get("params") or []
        if name not in params:
            if not callable(getattr(tool, name, None)):
                missing.append(name)
        elif params[name][: len(wanted)] != wanted:
            missing.append(f"{name}({', '.join(wanted)})")
    return missing + [name for name in members["properties"] if not hasattr(tool, name)]


class BoundTask(NamedTuple):
    """One adapter bound to the tool of this worker."""

    adapter: TaskAdapter
    methods: Dict[str, TypedMethod]


def task_methods(adapter: Type[TaskAdapter]) -> Dict[str, TypedMethod]:
    """The public methods of an adapter class, by name."""
    found: Dict[str, TypedMethod] = {}
    for name in dir(adapter):
        member = inspect.getattr_static(adapter, name)
        if not name.startswith("_") and inspect.isfunction(member):
            found[name] = TypedMethod(member)
    return found


def bind_task(tool: Capability, adapter: Type[TaskAdapter]) -> BoundTask:
    """An adapter of the tool; raises ``ADAPTER_INCOMPATIBLE`` naming what the tool lacks."""
    if not adapter.task_name:
        raise TypeError(f"{adapter.__name__} has no task_name")
    members = protocol_members(adapter)
    missing = missing_members(members, structural_surface(type(tool)), type(tool))
    if missing:
        raise CapabilityError(
            f"{adapter.__name__} needs {', '.join(missing)}, which {tool.name} does not have",
            code="ADAPTER_INCOMPATIBLE",
            fields_invalid=missing,
        )
    return BoundTask(adapter(tool), task_methods(adapter))


def bind_tasks(tool: Capability, specs: Sequence[str]) -> Dict[str, BoundTask]:
    """The tool's own adapters and those named as ``module:Class``.

    One that cannot be loaded or does not fit is logged and left out: the worker serves the rest.
    """
    bound: Dict[str, BoundTask] = {}
    for spec in [*tool.tasks, *specs]:
        try:
            adapter: Any = load_attribute(spec) if isinstance(spec, str) else spec
            bound[adapter.task_name] = bind_task(tool, adapter)
        except Exception as error:
            _log.error("task adapter %s is not bound: %s", spec, error, exc_info=error)
    return bound
