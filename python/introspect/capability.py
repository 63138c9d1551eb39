"""Describes a capability written for the Python package ``cjm-substrate``.

Runs inside the capability's environment, ``python capability.py <module>``, and prints the ``code``
section of its manifest as the last line of standard output. The module's ``capability`` submodule
must hold exactly one concrete ``ToolCapability``.
"""

import dataclasses
import importlib
import importlib.metadata
import inspect
import json
import sys


def find_class(module_name):
    from cjm_substrate.core.capability import ToolCapability

    module = importlib.import_module(module_name + ".capability")
    found = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, ToolCapability)
        and not inspect.isabstract(member)
        and member.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(member.__name__ for member in found) or "none"
        raise SystemExit(
            f"{module.__name__} must hold exactly one concrete ToolCapability; it holds {names}"
        )
    return found[0]


def config_schema(capability_class):
    """The schema of an instance; one that cannot be made without its resources has none."""
    try:
        instance = capability_class()
    except Exception as error:
        print(f"no config schema: {error!r}", file=sys.stderr)
        return None
    try:
        return instance.get_config_schema() if hasattr(instance, "get_config_schema") else None
    finally:
        try:
            instance.cleanup()
        except Exception as error:
            print(f"cleanup failed: {error!r}", file=sys.stderr)


def worker_env(capability_class):
    specs = getattr(capability_class, "WORKER_ENV", None) or []
    return [dataclasses.asdict(s) if dataclasses.is_dataclass(s) else dict(s) for s in specs]


def structural_surface(capability_class):
    try:
        from cjm_substrate.core.capability import derive_structural_surface
    except ImportError:
        return None
    return derive_structural_surface(capability_class)


def describe(module_name):
    capability_class = find_class(module_name)
    distributions = importlib.metadata.packages_distributions().get(module_name.split(".")[0])
    distribution = distributions[0] if distributions else module_name.replace("_", "-")
    metadata = importlib.metadata.metadata(distribution)
    return {
        "name": metadata.get("Name", distribution),
        "version": metadata.get("Version") or "0.0.0",
        "description": metadata.get("Summary") or "",
        "module": capability_class.__module__,
        "class": capability_class.__name__,
        "sdk": "cjm-substrate",
        "config_schema": config_schema(capability_class),
        "worker_env": worker_env(capability_class),
        "structural_surface": structural_surface(capability_class),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: capability.py <module>")
    print("\n" + json.dumps(describe(sys.argv[1]), default=str))
