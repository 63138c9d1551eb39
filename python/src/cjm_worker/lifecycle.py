"""The life-cycle routes of a worker: configuration, hooks, release and clean-up."""

import threading
from typing import Any, Callable, Dict, Mapping, Optional

from .calls import Call, entered
from .capability import Capability, FieldOptions, changed_fields, fire_release, reload_triggers
from .control import FrameSink
from .errors import CapabilityConfigError, CapabilityError, CapabilityInputError
from .schema import decode_record, schema_of, to_plain
from .validate import describe_problems, find_problems, paths_of

Reply = Dict[str, Any]


def is_overridden(capability: Capability, name: str) -> bool:
    """True when the author wrote this hook."""
    return getattr(type(capability), name) is not getattr(Capability, name)


def check_triggers(capability: Capability) -> None:
    """Raises TypeError for a config field whose trigger has no ``_release_`` method."""
    for field, trigger in reload_triggers(capability).items():
        if not callable(getattr(capability, f"_release_{trigger}", None)):
            name = type(capability).__name__
            raise TypeError(f"{name}: config field {field} needs a method _release_{trigger}")


class LifeCycle:
    """A capability's configuration and the hooks around it."""

    def __init__(self, capability: Capability, sink: FrameSink) -> None:
        check_triggers(capability)
        self.capability = capability
        self.config_schema = schema_of(type(capability).Config, "Config")
        #: The configuration in force as JSON; `None` until ``/initialize``.
        self.config_json: Optional[Dict[str, Any]] = None
        self._sink = sink
        self._lock = threading.Lock()
        self._cleaned = False
        if not find_problems({}, self.config_schema):
            capability.config = self._parse({})

    def _parse(self, data: Any) -> Any:
        problems = find_problems(data, self.config_schema)
        if problems:
            raise CapabilityConfigError(
                f"config of {self.capability.name}: {describe_problems(problems)}",
                fields_invalid=paths_of(problems),
            )
        try:
            return decode_record(type(self.capability).Config, data)
        except (ValueError, TypeError) as error:
            raise CapabilityConfigError(f"config of {self.capability.name}: {error}") from error

    def require_config(self) -> None:
        """Raises ``CAPABILITY_NOT_LOADED`` before ``/initialize``."""
        if self.config_json is None:
            message = f"{self.capability.name} is not initialized"
            raise CapabilityError(message, code="CAPABILITY_NOT_LOADED")

    def initialize(self, body: Dict[str, Any], call: Call) -> Reply:
        config = self._parse(body)
        self.capability.config = config
        self.capability.initialize(config)
        self.config_json = to_plain(config)
        self._cleaned = False
        return {"status": "ok"}

    def reconfigure(self, body: Dict[str, Any], call: Call) -> Reply:
        """Fires the releases of the fields that changed, then applies the new configuration."""
        if not isinstance(body.get("new_config"), dict):
            message = "new_config must be an object"
            raise CapabilityInputError(message, fields_invalid=["new_config"])
        old, new = self.capability.config, self._parse(body["new_config"])
        before = self.config_json if self.config_json is not None else body.get("old_config")
        after = to_plain(new)
        triggers = reload_triggers(self.capability)
        changed = changed_fields(before or {}, after)
        fired = list(dict.fromkeys(triggers[name] for name in changed if name in triggers))
        for trigger in fired:
            fire_release(self.capability, trigger)
        self.capability.config = new
        self.capability.reconfigure(old, new)
        self.config_json = after
        self._cleaned = False
        return {"status": "reconfigured", "changed": changed, "released": fired}

    def config_options(self) -> Reply:
        """The live choices of config fields."""
        with entered(Call(self._sink, name="config_options")):
            options = self.capability.get_config_options()
        return {name: _options_to_plain(domain) for name, domain in options.items()}

    def hook(self, name: str, status: str) -> Callable[[Dict[str, Any], Call], Reply]:
        """The route of a hook that takes nothing; ``not_supported`` where the author has none."""

        def run(body: Dict[str, Any], call: Call) -> Reply:
            if not is_overridden(self.capability, name):
                return {"status": "not_supported"}
            getattr(self.capability, name)()
            return {"status": status}

        return run

    def release(self, body: Dict[str, Any], call: Call) -> Reply:
        level = body.get("level", "unload")
        if not isinstance(level, str):
            raise CapabilityInputError("level must be text", fields_invalid=["level"])
        if not is_overridden(self.capability, "release"):
            return {"status": "not_supported"}
        reply = self.capability.release(level)
        body = {"status": "released", "held": reply.held if reply else ""}
        if reply and reply.freed_mb is not None:
            body["freed_mb"] = reply.freed_mb
        return body

    def cleanup(self, body: Dict[str, Any], call: Call) -> Reply:
        """Runs the author's cleanup once, however often it is asked for, until set up again."""
        if not is_overridden(self.capability, "cleanup"):
            return {"status": "not_supported"}
        with self._lock:
            if not self._cleaned:
                self._cleaned = True
                self.capability.cleanup()
        return {"status": "cleaned"}

    def run_cleanup(self) -> None:
        """The clean-up before the worker ends."""
        with entered(Call(self._sink, name="cleanup")) as call:
            self.cleanup({}, call)


def _options_to_plain(domain: FieldOptions) -> Mapping[str, Any]:
    options = [to_plain(option._asdict()) for option in domain.options]
    return {"options": options, "constraints": to_plain(dict(domain.constraints))}
