"""What an author subclasses: a tool, and the task adapters bound to it."""

import dataclasses
from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Type,
)

from .calls import Call, current_call
from .env import EnvVarSpec

#: Key of a config field's metadata: when the field changes, ``_release_<trigger>`` is called.
RELOAD_TRIGGER = "reload_trigger"


class ConfigOption(NamedTuple):
    """One live choice for a config field."""

    value: Any
    label: str
    metadata: Mapping[str, Any] = {}


class FieldOptions(NamedTuple):
    """The choices a config field has right now, apart from the hashed schema."""

    options: Sequence[ConfigOption]
    constraints: Mapping[str, Any] = {}


class ReleaseReply(NamedTuple):
    """What a release left behind, so that the host can check it by measurement."""

    #: What is still held, in words; empty when nothing is.
    held: str = ""
    freed_mb: Optional[float] = None


@dataclasses.dataclass
class NoConfig:
    """The configuration of a capability that has none."""


class Capability:
    """Base of a tool: identity, configuration, actions and the hooks of its life cycle.

    A subclass names itself, declares its configuration as a nested dataclass or TypedDict
    ``Config``, and marks methods with ``@action``. Calls run in threads, up to
    ``max_concurrent_requests`` at once.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = ""
    #: What it is for; the first line of the class's documentation unless given.
    description: ClassVar[str] = ""
    Config: ClassVar[Any] = NoConfig
    #: Task adapters that are always bound; more come from ``CJM_ADAPTERS``.
    tasks: ClassVar[Sequence[Type["TaskAdapter"]]] = ()
    #: Variables this worker reads when it starts.
    worker_env: ClassVar[Sequence[EnvVarSpec]] = ()
    max_concurrent_requests: ClassVar[int] = 1
    #: ``{"requires_gpu": True, "platforms": [...], "accelerators": [...]}``
    resources: ClassVar[Optional[Mapping[str, Any]]] = None

    #: The checked configuration; its defaults until the host sends one.
    config: Any = None

    # Hooks. Every one may be left out.

    def initialize(self, config: Any) -> None:
        """Sets up what the configuration asks for; also after it changed, when triggers fired."""

    def reconfigure(self, old: Any, new: Any) -> None:
        """Applies a changed configuration, after the releases; initializes again by default."""
        self.initialize(new)

    def prefetch(self) -> None:
        """Acquires heavy resources now; may be called more than once."""

    def release(self, level: str) -> Optional[ReleaseReply]:
        """Gives memory back but stays alive; the next call acquires again what it needs."""
        return None

    def get_config_options(self) -> Mapping[str, FieldOptions]:
        """Live choices of config fields, for instance the models a service offers today."""
        return {}

    def on_disable(self) -> None:
        """The host disabled this capability; the worker stays alive."""

    def on_enable(self) -> None:
        """The host enabled this capability again."""

    def cleanup(self) -> None:
        """Ends what the capability started; called once before the worker ends."""

    # What a running call may ask and tell, from the thread the call runs in.

    @property
    def call(self) -> Call:
        """The call this code runs for. Raises RuntimeError outside one."""
        call = current_call()
        if call is None:
            raise RuntimeError("no call runs in this thread; wrap its function in call.bind()")
        return call

    def check_cancel(self) -> None:
        """Raises when the current call was cancelled."""
        self.call.check_cancel()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Runs ``callback`` when the current call is cancelled."""
        self.call.on_cancel(callback)

    @contextmanager
    def cancel_signal_to(self, callback: Callable[[], object]) -> Iterator[None]:
        """Runs ``callback`` when the current call is cancelled inside the block."""
        with self.call.cancel_signal_to(callback):
            yield

    def report_progress(self, progress: float, message: str = "") -> None:
        """Progress of the current call, prefetch or initialize: 0 to 1, or -1 for unknown."""
        self.call.report_progress(progress, message)

    @contextmanager
    def heartbeat(self, message: str = "", interval: float = 0.5) -> Iterator[None]:
        """Repeats the last progress message with the elapsed seconds while the block runs."""
        with self.call.heartbeat(message, interval):
            yield

    def report_usage(self, units: Mapping[str, float]) -> None:
        """Adds to the measured usage of the current call."""
        self.call.report_usage(units)

    def record_account(self, event_type: str, payload: Optional[Mapping[str, Any]] = None) -> None:
        """Adds a row to the journal for the current call."""
        self.call.record_account(event_type, payload)

    def report_memory(
        self, gpu_peak_mb: Optional[float] = None, host_peak_mb: Optional[float] = None
    ) -> None:
        """Reports the tool's own allocator peak during the current call."""
        self.call.report_memory(gpu_peak_mb, host_peak_mb)


class TaskAdapter:
    """A typed task implementation bound to a tool inside its worker.

    Public methods are the task's methods; ``requires`` names the tool's members they use, and
    ``required_tool_protocol`` may be a ``typing.Protocol`` that says the same with parameters.
    """

    task_name: ClassVar[str] = ""
    requires: ClassVar[Sequence[str]] = ()
    required_tool_protocol: ClassVar[Optional[type]] = None

    def __init__(self, tool: Any) -> None:
        self.tool = tool


def reload_triggers(capability: Capability) -> Dict[str, str]:
    """Config field to the trigger its change fires; empty for a TypedDict."""
    if not dataclasses.is_dataclass(capability.Config):
        return {}
    return {
        field.name: str(field.metadata[RELOAD_TRIGGER])
        for field in dataclasses.fields(capability.Config)
        if RELOAD_TRIGGER in field.metadata
    }


def fire_release(capability: Capability, trigger: str) -> None:
    """Calls ``_release_<trigger>``."""
    getattr(capability, f"_release_{trigger}")()


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> List[str]:
    """Names whose values differ; a name that only one side has differs."""
    absent = object()
    names = dict.fromkeys([*old, *new])
    return [name for name in names if old.get(name, absent) != new.get(name, absent)]
