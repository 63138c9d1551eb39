"""Typed failures, and the mapping of every exception to the form that crosses the wire.

Branch on ``code`` or ``category``; messages are for people. The host retries by category, so
raising the right class is all an author has to do.
"""

import errno
import re
from datetime import datetime, timezone
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

#: Code to the category it has by default; the same table as the host's.
ERROR_CODES: Mapping[str, str] = {
    "ACTION_UNKNOWN": "user_input",
    "ADAPTER_INCOMPATIBLE": "user_input",
    "CAPABILITY_CANCELLED": "transient",
    "CAPABILITY_ERROR": "fatal",
    "CAPABILITY_INPUT": "user_input",
    "CAPABILITY_NOT_LOADED": "fatal",
    "CAPABILITY_OUTPUT": "fatal",
    "CAPABILITY_RESOURCE": "resource",
    "CAPABILITY_TIMEOUT": "transient",
    "CAPABILITY_TRANSIENT": "transient",
    "CONFIG_INVALID": "user_input",
    "FILE_INVALID": "user_input",
    "METHOD_NOT_SUPPORTED": "user_input",
    "OUTPUT_OUTSIDE_FOLDER": "fatal",
    "REQUEST_TOO_LARGE": "user_input",
    "RESPONSE_TOO_LARGE": "fatal",
    "SECRET_MISSING": "user_input",
}

_MESSAGE_MAX = 16 * 1024
_TRACEBACK_MAX = 32 * 1024


class ResourceShortfall(NamedTuple):
    """What was missing, in megabytes."""

    #: ``gpu_vram_mb``, ``system_ram_mb`` or ``disk_mb``.
    resource: str
    needed: float
    available: float


class CapabilityError(Exception):
    """Base of every failure the host understands."""

    code = "CAPABILITY_ERROR"

    def __init__(
        self,
        message: str,
        *,
        code: Optional[str] = None,
        reason: Optional[str] = None,
        category: Optional[str] = None,
        fields_invalid: Sequence[str] = (),
        retry_after_seconds: Optional[float] = None,
        resource_shortfall: Optional[ResourceShortfall] = None,
    ) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.category = category or ERROR_CODES.get(self.code, "fatal")
        #: A word that says which case of the code it is, such as ``context_overflow``.
        self.reason = reason
        #: Dotted paths of the inputs that are wrong.
        self.fields_invalid: List[str] = list(fields_invalid)
        self.retry_after_seconds = retry_after_seconds
        self.resource_shortfall = resource_shortfall


class CapabilityInputError(CapabilityError):
    """The caller can fix it: a bad argument, a missing file. Never retried."""

    code = "CAPABILITY_INPUT"


class CapabilityConfigError(CapabilityInputError):
    """The configuration has unknown or ill-typed keys."""

    code = "CONFIG_INVALID"


class CapabilityTransientError(CapabilityError):
    """A later attempt may succeed; ``retry_after_seconds`` says when."""

    code = "CAPABILITY_TRANSIENT"


class CapabilityTimeoutError(CapabilityTransientError):
    """The call's deadline passed."""

    code = "CAPABILITY_TIMEOUT"


class CapabilityCancelledError(CapabilityTransientError):
    """The call was cancelled; raised by ``check_cancel()``. Never retried."""

    code = "CAPABILITY_CANCELLED"


class CapabilityResourceError(CapabilityError):
    """GPU memory, system memory or disk ran out; the host makes room and tries again."""

    code = "CAPABILITY_RESOURCE"


class CapabilityFatalError(CapabilityError):
    """A bug or a broken state; retrying will not help."""


_USER_INPUT = (
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    KeyError,
    ValueError,
    TypeError,
)
_RESOURCE_ERRNO = frozenset((errno.ENOSPC, errno.ENOMEM, getattr(errno, "EDQUOT", errno.ENOSPC)))

# Torch, CuPy, JAX, ONNX Runtime and C++ allocators; none of them is imported to find out.
_OUT_OF_MEMORY_CLASSES = frozenset(("OutOfMemoryError",))
_OUT_OF_MEMORY_TEXT = re.compile(
    r"(?:CUDA|HIP|MPS backend|XPU)[^\n]{0,40}out of memory|out of memory on device"
    r"|CU(?:BLAS|DNN|SOLVER|FFT)_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation"
    r"|CUDA_ERROR_OUT_OF_MEMORY|^RESOURCE_EXHAUSTED|std::bad_alloc"
    r"|DefaultCPUAllocator: (?:can't|not enough)",
    re.IGNORECASE,
)
_TORCH_NEEDED = re.compile(r"Tried to allocate ([\d.]+) ([KMGT]i?B)", re.IGNORECASE)
_TORCH_FREE = re.compile(r"([\d.]+) ([KMGT]i?B)(?: is)? free", re.IGNORECASE)
_UNIT_MB = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0 * 1024.0}


def is_out_of_memory(exc: BaseException) -> bool:
    """True for a host or GPU allocation failure, recognised by class name and message."""
    if isinstance(exc, MemoryError):
        return True
    if any(cls.__name__ in _OUT_OF_MEMORY_CLASSES for cls in type(exc).__mro__):
        return True
    return isinstance(exc, (RuntimeError, OSError)) and bool(_OUT_OF_MEMORY_TEXT.search(str(exc)))


def _megabytes(match: "Optional[re.Match[str]]") -> Optional[float]:
    if match is None:
        return None
    return round(float(match.group(1)) * _UNIT_MB[match.group(2)[0].lower()], 3)


def _shortfall_of(exc: BaseException) -> Optional[ResourceShortfall]:
    """The numbers torch prints in its message, when they are there."""
    needed = _megabytes(_TORCH_NEEDED.search(str(exc)))
    available = _megabytes(_TORCH_FREE.search(str(exc)))
    if needed is None or available is None:
        return None
    return ResourceShortfall("gpu_vram_mb", needed, available)


def _causes(exc: BaseException) -> List[BaseException]:
    chain: List[BaseException] = []
    current: Optional[BaseException] = exc
    while current is not None and current not in chain and len(chain) < 16:
        chain.append(current)
        current = current.__cause__
    return chain


def classify_exception(exc: BaseException) -> Tuple[str, str]:
    """``(code, category)`` of any exception; what is not recognised is ``fatal``."""
    if isinstance(exc, CapabilityError):
        return exc.code, exc.category
    if any(is_out_of_memory(cause) for cause in _causes(exc)):
        return "CAPABILITY_RESOURCE", "resource"
    if isinstance(exc, OSError) and exc.errno in _RESOURCE_ERRNO:
        return "CAPABILITY_RESOURCE", "resource"
    if any(cls.__name__ == "TimeoutError" for cls in type(exc).__mro__):
        return "CAPABILITY_TIMEOUT", "transient"
    if isinstance(exc, _USER_INPUT):
        return "CAPABILITY_INPUT", "user_input"
    if isinstance(exc, OSError):
        return "CAPABILITY_TRANSIENT", "transient"
    return "CAPABILITY_ERROR", "fatal"


def cut(text: str, limit: int) -> str:
    """The text, or its first ``limit`` characters and how many are missing."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [{len(text) - limit} characters cut]"


def _text_of(exc: BaseException) -> str:
    try:
        # A KeyError prints its key in quotes only; the name says what the quotes mean.
        return repr(exc) if isinstance(exc, KeyError) else str(exc) or type(exc).__name__
    except Exception:  # an author's __str__ may itself be broken
        return type(exc).__name__


def _safe_repr(exc: BaseException) -> str:
    try:
        return repr(exc)
    except Exception:
        return f"{type(exc).__name__}(<unprintable>)"


def _traceback_of(exc: BaseException) -> str:
    import traceback

    text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    if len(text) <= _TRACEBACK_MAX:
        return text
    # The innermost frames, at the end, say where it failed.
    return f"[{len(text) - _TRACEBACK_MAX} characters cut]…{text[-_TRACEBACK_MAX:]}"


def to_job_error(
    exc: BaseException,
    *,
    capability_name: Optional[str] = None,
    capability_instance_id: Optional[str] = None,
) -> Dict[str, Any]:
    """The wire form of a failure; members without a value are left out."""
    code, category = classify_exception(exc)
    error: Dict[str, Any] = {
        "category": category,
        "code": code,
        "message": cut(_text_of(exc), _MESSAGE_MAX),
        "retriable": category == "transient" and code != "CAPABILITY_CANCELLED",
        "original_exc_repr": cut(_safe_repr(exc), _MESSAGE_MAX),
        "traceback": _traceback_of(exc),
        "capability_name": capability_name,
        "capability_instance_id": capability_instance_id,
        "occurred_at": utc_now(),
    }
    shortfall = None
    if isinstance(exc, CapabilityError):
        error["reason"] = exc.reason
        error["retry_after_seconds"] = exc.retry_after_seconds
        error["fields_invalid"] = exc.fields_invalid or None
        shortfall = exc.resource_shortfall
    elif category == "resource":
        found = (_shortfall_of(cause) for cause in _causes(exc))
        shortfall = next((item for item in found if item is not None), None)
    if shortfall is not None:
        error["resource_shortfall"] = shortfall._asdict()
    return {key: value for key, value in error.items() if value is not None}


def utc_now() -> str:
    """This moment as the host's timestamps are written: UTC, milliseconds, ``Z``."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
