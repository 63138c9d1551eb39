"""``python -m cjm_worker.introspect [--adapter] module:Class`` prints what a class is, as JSON.

Provisioning writes manifests from it. A class that cannot be described ends it with 1 and the
reason on stderr.
"""

import argparse
import inspect
import json
import os
import re
import sys
from datetime import datetime, timezone
from typing import Any, Dict, Optional, Sequence, Type

from .actions import actions_of
from .capability import Capability, TaskAdapter
from .lifecycle import check_triggers
from .schema import schema_of
from .surface import load_attribute, protocol_members, structural_surface, task_methods
from .worker import PROTOCOL_VERSION

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def _first_paragraph(cls: type) -> str:
    return (inspect.cleandoc(cls.__doc__ or "")).partition("\n\n")[0].replace("\n", " ")


def describe(cls: Type[Capability], spec: str = "") -> Dict[str, Any]:
    """The ``code`` section of a manifest for a capability class.

    Raises TypeError or CapabilityConfigError naming what is wrong with the class.
    """
    if not (isinstance(cls, type) and issubclass(cls, Capability)):
        raise TypeError(f"{cls!r} is not a Capability class")
    if not _NAME.match(cls.name):
        raise TypeError(
            f"{cls.__name__}.name is {cls.name!r}: letters, digits, _ and -, at most 64"
        )
    if not cls.version:
        raise TypeError(f"{cls.__name__} has no version")
    check_triggers(cls())
    module, _, class_name = spec.partition(":")
    adapters = [load_attribute(item) if isinstance(item, str) else item for item in cls.tasks]
    code: Dict[str, Any] = {
        "name": cls.name,
        "version": cls.version,
        "description": cls.description or _first_paragraph(cls),
        "module": module or cls.__module__,
        "class": class_name or cls.__qualname__,
        "sdk": "cjm",
        "protocol": PROTOCOL_VERSION,
        "actions": {name: method.to_manifest() for name, method in actions_of(cls).items()},
        "tasks": {adapter.task_name: sorted(task_methods(adapter)) for adapter in adapters},
        "max_concurrent_requests": cls.max_concurrent_requests,
        "monitor": callable(getattr(cls, "get_system_status", None)),
        "config_schema": schema_of(cls.Config, "Config"),
        "worker_env": [variable.to_manifest() for variable in cls.worker_env],
        "structural_surface": structural_surface(cls),
    }
    if cls.resources is not None:
        code["resources"] = dict(cls.resources)
    return code


def describe_adapter(cls: Type[TaskAdapter], spec: str = "") -> Dict[str, Any]:
    """The manifest of a task adapter class. Raises TypeError when it names no task."""
    if not (isinstance(cls, type) and issubclass(cls, TaskAdapter)) or not cls.task_name:
        raise TypeError(f"{cls!r} is not a TaskAdapter class with a task_name")
    module, _, class_name = spec.partition(":")
    protocol = cls.required_tool_protocol
    module, class_name = module or cls.__module__, class_name or cls.__qualname__
    return {
        "unit": "adapter",
        "name": f"{module}.{class_name}",
        "version": str(getattr(cls, "version", "")),
        "task_name": cls.task_name,
        "module": module,
        "class": class_name,
        "methods": sorted(task_methods(cls)),
        "required_tool_protocol": (
            f"{protocol.__module__}.{protocol.__qualname__}" if protocol else ""
        ),
        "protocol_members": protocol_members(cls),
        "generated_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Prints the description on stdout; what the module prints goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m cjm_worker.introspect")
    parser.add_argument("--adapter", action="store_true", help="describe a task adapter")
    parser.add_argument("spec", metavar="module:Class")
    arguments = parser.parse_args(argv)
    # The answer must be the only thing on stdout, whatever the import prints.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        cls = load_attribute(arguments.spec)
        describe_it: Any = describe_adapter if arguments.adapter else describe
        json.dump(describe_it(cls, arguments.spec), answer, ensure_ascii=False, allow_nan=False)
    except Exception as error:
        sys.stderr.write(f"{arguments.spec}: {type(error).__name__}: {error}\n")
        return 1
    answer.write("\n")
    answer.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
