"""Limits of a JSON body, checked on its bytes before anything is parsed."""

import json
import re
from typing import Any

from .errors import CapabilityError, CapabilityInputError

BODY_MAX_BYTES = 4 * 1024 * 1024
BODY_MAX_DEPTH = 64
BODY_MAX_VALUES = 200_000

# A string that never ends runs to the end of the body.
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_EMPTY = re.compile(rb"\[\s*\]|\{\s*\}")


def too_large(what: str, response: bool) -> CapabilityError:
    """The error for a body beyond a limit, named after the direction it travels in."""
    code = "RESPONSE_TOO_LARGE" if response else "REQUEST_TOO_LARGE"
    return CapabilityError(f"{what}; larger content travels as a FileRef", code=code)


def check_bounds(body: bytes, *, response: bool = False) -> None:
    """Raises a ``REQUEST_TOO_LARGE`` or ``RESPONSE_TOO_LARGE`` error for a body beyond a limit."""
    if len(body) > BODY_MAX_BYTES:
        raise too_large(f"the body has {len(body)} bytes, the limit is {BODY_MAX_BYTES}", response)
    containers = body.count(b"[") + body.count(b"{")
    values = 1 + body.count(b",") + containers
    # These counts include what stands inside strings, so they can only be too high.
    if containers <= BODY_MAX_DEPTH and values <= BODY_MAX_VALUES:
        return
    _check_exactly(_STRINGS.sub(b'""', body), response)


def _check_exactly(structure: bytes, response: bool) -> None:
    containers = structure.count(b"[") + structure.count(b"{")
    values = 1 + structure.count(b",") + containers - len(_EMPTY.findall(structure))
    if values > BODY_MAX_VALUES:
        raise too_large(f"the body has {values} values, the limit is {BODY_MAX_VALUES}", response)
    if _is_too_deep(structure.translate(_AS_SQUARE, _NOT_BRACKETS)):
        raise too_large(f"the body is nested deeper than {BODY_MAX_DEPTH} levels", response)


def _is_too_deep(brackets: bytes) -> bool:
    rest = brackets
    # Each round takes the innermost level away, at the speed of C.
    for _ in range(BODY_MAX_DEPTH):
        shorter = rest.replace(b"[]", b"")
        if len(shorter) == len(rest):
            break
        rest = shorter
    if not rest:
        return False
    depth = 0
    for bracket in brackets:
        depth = depth + 1 if bracket == 0x5B else max(0, depth - 1)
        if depth > BODY_MAX_DEPTH:
            return True
    return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_integer(digits: str) -> "int | float":
    # A number of thousands of digits takes quadratic time as an integer; JavaScript reads a double.
    return int(digits) if len(digits) <= 400 else float(digits)


_decoder = json.JSONDecoder(parse_int=_parse_integer, parse_constant=_refuse_constant)


def parse_json(body: bytes) -> Any:
    """The value of a body, its limits checked first.

    Raises ``CAPABILITY_INPUT`` for what is not JSON in UTF-8, ``REQUEST_TOO_LARGE`` beyond a limit.
    """
    check_bounds(body)
    try:
        return _decoder.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CapabilityInputError(f"the body is not JSON: {error}") from None


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def to_json(value: Any) -> bytes:
    """Compact UTF-8 JSON.

    Raises ValueError for NaN and infinities, TypeError for values JSON has no form for.
    """
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError:
        # Lone surrogates have no UTF-8; as escapes they survive.
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
