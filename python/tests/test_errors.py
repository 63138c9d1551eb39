"""Every exception becomes a typed failure of the right category."""

import errno
from typing import Any, Optional

import pytest

from cjm_worker import (
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
from cjm_worker.errors import classify_exception, to_job_error

TORCH_MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.72 GiB of "
    "which 512.00 MiB is free."
)


class OutOfMemoryError(RuntimeError):
    """Named like torch's and CuPy's."""


@pytest.mark.parametrize(
    ("error", "code", "category"),
    [
        (CapabilityInputError("x"), "CAPABILITY_INPUT", "user_input"),
        (CapabilityConfigError("x"), "CONFIG_INVALID", "user_input"),
        (CapabilityTransientError("x"), "CAPABILITY_TRANSIENT", "transient"),
        (CapabilityTimeoutError("x"), "CAPABILITY_TIMEOUT", "transient"),
        (CapabilityCancelledError("x"), "CAPABILITY_CANCELLED", "transient"),
        (CapabilityResourceError("x"), "CAPABILITY_RESOURCE", "resource"),
        (CapabilityFatalError("x"), "CAPABILITY_ERROR", "fatal"),
        (CapabilityError("x", code="OF_A_TOOL"), "OF_A_TOOL", "fatal"),
        (FileNotFoundError("x"), "CAPABILITY_INPUT", "user_input"),
        (NotADirectoryError("x"), "CAPABILITY_INPUT", "user_input"),
        (IsADirectoryError("x"), "CAPABILITY_INPUT", "user_input"),
        (PermissionError("x"), "CAPABILITY_INPUT", "user_input"),
        (KeyError("x"), "CAPABILITY_INPUT", "user_input"),
        (ValueError("x"), "CAPABILITY_INPUT", "user_input"),
        (TypeError("x"), "CAPABILITY_INPUT", "user_input"),
        (TimeoutError("x"), "CAPABILITY_TIMEOUT", "transient"),
        (ConnectionResetError("x"), "CAPABILITY_TRANSIENT", "transient"),
        (InterruptedError("x"), "CAPABILITY_TRANSIENT", "transient"),
        (BlockingIOError("x"), "CAPABILITY_TRANSIENT", "transient"),
        (OSError(errno.EBUSY, "x"), "CAPABILITY_TRANSIENT", "transient"),
        (OSError(errno.ENOSPC, "x"), "CAPABILITY_RESOURCE", "resource"),
        (OSError(errno.ENOMEM, "x"), "CAPABILITY_RESOURCE", "resource"),
        (MemoryError(), "CAPABILITY_RESOURCE", "resource"),
        (RuntimeError(TORCH_MESSAGE), "CAPABILITY_RESOURCE", "resource"),
        (RuntimeError("CUDA error: out of memory"), "CAPABILITY_RESOURCE", "resource"),
        (RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"), "CAPABILITY_RESOURCE", "resource"),
        (RuntimeError("RESOURCE_EXHAUSTED: XLA"), "CAPABILITY_RESOURCE", "resource"),
        (OutOfMemoryError("x"), "CAPABILITY_RESOURCE", "resource"),
        (RuntimeError("x"), "CAPABILITY_ERROR", "fatal"),
        (AssertionError("x"), "CAPABILITY_ERROR", "fatal"),
        (AttributeError("x"), "CAPABILITY_ERROR", "fatal"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_exception_has_a_code_and_a_category(error: Any, code: str, category: str) -> None:
    assert classify_exception(error) == (code, category)


def test_out_of_memory_is_found_under_the_error_it_caused() -> None:
    error = ValueError("the model did not load")
    error.__cause__ = RuntimeError(TORCH_MESSAGE)
    assert classify_exception(error)[1] == "resource"
    shortfall = to_job_error(error)["resource_shortfall"]
    assert shortfall == {"resource": "gpu_vram_mb", "needed": 2048.0, "available": 512.0}


def test_the_authors_own_category_stands() -> None:
    error = CapabilityInputError("batch too large")
    error.__cause__ = MemoryError()
    assert classify_exception(error)[1] == "user_input"


def test_a_failure_carries_its_side_channel() -> None:
    gap = ResourceShortfall("disk_mb", 10, 2.5)
    wire = to_job_error(
        CapabilityError("x", category="resource", retry_after_seconds=2, resource_shortfall=gap),
        capability_name="tool",
    )
    assert wire["category"] == "resource"
    assert wire["retry_after_seconds"] == 2
    assert wire["resource_shortfall"] == {"resource": "disk_mb", "needed": 10, "available": 2.5}
    assert wire["capability_name"] == "tool"
    assert wire["occurred_at"].endswith("Z")


def test_only_transient_failures_are_worth_another_try() -> None:
    assert to_job_error(CapabilityTransientError("x"))["retriable"] is True
    assert to_job_error(CapabilityCancelledError("x"))["retriable"] is False
    assert to_job_error(MemoryError())["retriable"] is False


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_an_exception_that_cannot_be_printed_is_reported_all_the_same() -> None:
    wire = to_job_error(Broken())
    assert wire["message"] == "Broken"
    assert "Broken" in wire["original_exc_repr"]


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise RuntimeError("x" * 100_000)


def test_long_messages_and_tracebacks_are_cut_and_say_so() -> None:
    caught: Optional[BaseException] = None
    try:
        deep(300)
    except RuntimeError as error:
        caught = error
    assert caught is not None
    wire = to_job_error(caught)
    assert len(wire["message"]) < 20_000 and "characters cut" in wire["message"]
    assert len(wire["traceback"]) < 40_000 and "characters cut" in wire["traceback"]
