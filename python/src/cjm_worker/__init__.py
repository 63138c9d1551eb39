"""Worker SDK of cjm-substrate for Python; the standard library is all it needs.

See ``docs/writing-a-capability.md`` of the project.
"""

from .control import claim_control_socket

# Before any code of the tool runs: no child process may inherit the control stream.
claim_control_socket()

from .actions import action
from .calls import Call, Envelope, current_call
from .capability import (
    RELOAD_TRIGGER,
    Capability,
    ConfigOption,
    FieldOptions,
    ReleaseReply,
    TaskAdapter,
)
from .env import EnvVarSpec
from .errors import (
    CapabilityCancelledError,
    CapabilityConfigError,
    CapabilityError,
    CapabilityFatalError,
    CapabilityInputError,
    CapabilityResourceError,
    CapabilityTimeoutError,
    CapabilityTransientError,
    ResourceShortfall,
)
from .files import DirRef, FileRef
from .process import serve
from .wire import wire_type

__version__ = "0.1.0"

__all__ = [
    "RELOAD_TRIGGER",
    "Call",
    "Capability",
    "CapabilityCancelledError",
    "CapabilityConfigError",
    "CapabilityError",
    "CapabilityFatalError",
    "CapabilityInputError",
    "CapabilityResourceError",
    "CapabilityTimeoutError",
    "CapabilityTransientError",
    "ConfigOption",
    "DirRef",
    "EnvVarSpec",
    "Envelope",
    "FieldOptions",
    "FileRef",
    "ReleaseReply",
    "ResourceShortfall",
    "TaskAdapter",
    "action",
    "current_call",
    "serve",
    "wire_type",
]
