"""Canonical JSON: equal values give equal text, in Python and in TypeScript.

Keys are sorted by UTF-16 code units and numbers are printed as JavaScript's ``Number::toString``
prints them (ECMA-262, 6.1.6.1.20), so a hash made here equals the one the host makes.
"""

import json
import math
import re
from typing import Any, List

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST_EXACT = 2**53


def format_number(value: float) -> str:
    """A finite number as JavaScript prints it.

    Raises ValueError for NaN and infinities, which JSON has no form for.
    """
    if isinstance(value, int) and abs(value) <= _LARGEST_EXACT:
        return str(value)
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("a number beyond the range of a double has no JSON form") from None
    if not math.isfinite(number):
        raise ValueError(f"{number} has no JSON form")
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    digits, point = _shortest_digits(abs(number))
    return sign + _layout(digits, point)


def _shortest_digits(number: float) -> "tuple[str, int]":
    """The shortest digits that read back as this number, and where the point stands in them."""
    mantissa, _, exponent = repr(number).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    leading = len(whole + fraction) - len(digits)
    point = len(whole) - leading + (int(exponent) if exponent else 0)
    return digits.rstrip("0"), point


def _layout(digits: str, point: int) -> str:
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    exponent = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return f"{digits[0]}{'.' + digits[1:] if count > 1 else ''}{exponent}"


def _format_string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", quoted)


def _utf16_order(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space.

    Raises TypeError for values JSON has no form for, ValueError for numbers it has none for.
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return _format_string(value)
    if isinstance(value, (int, float)):
        return format_number(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(canonical_json(item) for item in value)}]"
    if isinstance(value, dict):
        members: List[str] = []
        if any(not isinstance(key, str) for key in value):
            raise TypeError("object keys must be strings")
        for key in sorted(value, key=_utf16_order):
            members.append(f"{_format_string(key)}:{canonical_json(value[key])}")
        return f"{{{','.join(members)}}}"
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def sha256(content: "bytes | str") -> str:
    """``sha256:<hex>`` of bytes or UTF-8 text."""
    import hashlib  # loads OpenSSL, which an idle worker does not need

    data = content.encode("utf-8") if isinstance(content, str) else content
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hash_canonical(value: Any) -> str:
    """``sha256:<hex>`` of the canonical JSON of a value."""
    return sha256(canonical_json(value))
