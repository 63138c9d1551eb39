"""Describes a task adapter of the Python package ``cjm-substrate``.

Runs inside the tool's environment, ``python adapter.py <module>:<Class>``, and prints the adapter's
manifest as the last line of standard output.
"""

import importlib
import inspect
import json
import sys


def members_of(protocol):
    methods, properties = [], []
    for name in sorted(dir(protocol)):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(protocol, name)
        if isinstance(member, property):
            properties.append(name)
            continue
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function):
            methods.append({"name": name, **signature_of(function)})
    return {"methods": methods, "properties": properties}


def signature_of(function):
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return {"signature": "(...)", "params": []}
    params = [name for name in signature.parameters if name != "self"]
    return {"signature": str(signature), "params": params}


def methods_of(adapter_class):
    members = ((name, inspect.getattr_static(adapter_class, name)) for name in dir(adapter_class))
    return [name for name, member in members if name[0] != "_" and inspect.isfunction(member)]


def config_schema(adapter_class):
    try:
        getter = getattr(adapter_class(), "get_config_schema", None)
        return (getter() or {}) if callable(getter) else {}
    except Exception as error:
        print(f"no config schema: {error!r}", file=sys.stderr)
        return {}


def describe(target):
    module_name, class_name = target.rsplit(":", 1)
    adapter_class = getattr(importlib.import_module(module_name), class_name)
    protocol = getattr(adapter_class, "required_tool_protocol", None)
    task_name = getattr(adapter_class, "task_name", "")
    if not task_name:
        raise SystemExit(f"{target} has no task_name")
    if protocol is None:
        raise SystemExit(f"{target} has no required_tool_protocol")
    root = importlib.import_module(module_name.split(".")[0])
    return {
        "unit": "adapter",
        "name": f"{module_name}.{class_name}",
        "version": getattr(root, "__version__", "0.0.0"),
        "task_name": task_name,
        "module": module_name,
        "class": class_name,
        "methods": methods_of(adapter_class),
        "required_tool_protocol": f"{protocol.__module__}.{protocol.__qualname__}",
        "protocol_members": members_of(protocol),
        "config_schema": config_schema(adapter_class),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2 or ":" not in sys.argv[1]:
        raise SystemExit("usage: adapter.py <module>:<Class>")
    print("\n" + json.dumps(describe(sys.argv[1]), default=str))
