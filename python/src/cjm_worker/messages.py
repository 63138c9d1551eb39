"""What goes into a worker and what comes out of it, apart from any socket."""

from typing import Any, Callable, Dict, Generator, Iterator, List, Mapping, NamedTuple, Union

from .bounds import check_bounds, parse_json, to_json
from .calls import Call
from .errors import CapabilityError, CapabilityInputError

LineGenerator = Generator[bytes, None, None]


class Response(NamedTuple):
    """What goes back: one JSON body, or the lines of a stream."""

    status: int
    body: Union[bytes, "Lines"]


class Request(NamedTuple):
    """What came in; the body is read and bounded, not yet parsed."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    #: Told about the call this request became, so that a closed connection can cancel it.
    watch: Callable[[Call], None] = lambda call: None


class Lines:
    """The lines of a stream; closing it before its end cancels the call."""

    def __init__(self, lines: LineGenerator, end: Callable[[], None], call: Call) -> None:
        self._lines = lines
        self._end = end
        self._call = call
        self._finished = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._lines
        self._finished = True

    def close(self) -> None:
        """Ends the stream, also one that was never begun."""
        if not self._finished:
            self._call.cancel("the caller left the stream")
        self._lines.close()
        self._end()


def encode_result(value: Any) -> bytes:
    try:
        encoded = to_json(value)
    except ValueError as error:
        message = f"the result has no JSON form: {error}"
        raise CapabilityError(message, code="CAPABILITY_OUTPUT") from error
    check_bounds(encoded, response=True)
    return encoded


def object_of(body: bytes) -> Dict[str, Any]:
    value = parse_json(body) if body.strip() else {}
    if not isinstance(value, dict):
        raise CapabilityInputError("the body must be a JSON object", fields_invalid=["body"])
    return value


def members_of(body: Mapping[str, Any], key: str) -> Dict[str, Any]:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise CapabilityInputError(f"{key} must be an object", fields_invalid=[key])
    return value or {}


def array_of(body: Mapping[str, Any], key: str) -> List[Any]:
    value = body.get(key)
    if value is not None and not isinstance(value, list):
        raise CapabilityInputError(f"{key} must be an array", fields_invalid=[key])
    return value or []
