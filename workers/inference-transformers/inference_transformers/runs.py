"""One text that is being generated: what it is made of so far, and when it ends."""

import time
from queue import SimpleQueue
from typing import Any, FrozenSet, List, Literal, NamedTuple, Optional, Sequence, Tuple, Union

from .adapters import Applied
from .fields import Delta, Logprob
from .sampling import Likely, Sampler
from .text import StopScanner, TextDecoder

Reason = Literal["stop", "stop_sequence", "length"]


class Ended(NamedTuple):
    """The last event of a run; ``error`` is what it failed with."""

    error: Optional[BaseException] = None


class TextRun:
    """One generation, driven by the runner's thread and read by the call's.

    ``events`` gives deltas where ``streams`` is set, and :class:`Ended` at last.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        tokenizer: Any,
        *,
        stops: Sequence[str],
        ends: FrozenSet[int],
        max_tokens: int,
        applied: Applied = (),
        streams: bool = False,
    ) -> None:
        self.prompt = list(prompt)
        self.sampler = sampler
        self.applied = applied
        self.events: "SimpleQueue[Union[Delta, Ended]]" = SimpleQueue()
        self.cancelled = False
        self.finish_reason: Optional[Reason] = None
        self.stop_sequence: Optional[str] = None
        self.logprobs: Optional[List[Logprob]] = None if sampler.logprobs is None else []
        #: Tokens of the prompt that have been read.
        self.read = 0
        #: The token to feed next, and how many there are.
        self.last = -1
        self.completion_tokens = 0
        self.queued_at = time.monotonic()
        self.started_at = self.first_at = self.ended_at = 0.0
        self._tokenizer = tokenizer
        self._decoder = TextDecoder(tokenizer)
        self._scanner = StopScanner(stops)
        self._ends = ends
        self._max_tokens = max_tokens
        self._streams = streams
        self._text: List[str] = []
        self._reported = 0

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    def cancel(self) -> None:
        """Wakes the reader at once; the runner frees the slot before its next pass."""
        self.cancelled = True
        self.events.put(Ended())

    def fail(self, error: BaseException) -> None:
        self.events.put(Ended(error))

    def take(self, token: int, likely: Optional[Likely]) -> None:
        """Adds the next token, and ends the run where it does."""
        now = time.monotonic()
        self.completion_tokens += 1
        if self.completion_tokens == 1:
            self.first_at = now
        self.last = token
        if token in self._ends:
            self._finish("stop", now)
            return
        closed = self.sampler.chosen(token)
        if likely is not None and self.logprobs is not None:
            self.logprobs.append(self._logprob(token, likely))
        stop = self._emit(*self._scanner.add(self._decoder.add(token)))
        if stop is not None:
            self._finish("stop_sequence", now)
        elif closed:
            self._finish("stop", now)
        elif self.completion_tokens >= self._max_tokens:
            self._finish("length", now)

    def _emit(self, text: str, stop: Optional[str]) -> Optional[str]:
        self.stop_sequence = stop
        if text:
            self._text.append(text)
            if self._streams:
                self._send(text)
        return stop

    def _send(self, text: str) -> None:
        delta: Delta = {"type": "delta", "text": text}
        if self.logprobs is not None:
            delta["logprobs"] = self.logprobs[self._reported :]
            self._reported = len(self.logprobs)
        self.events.put(delta)

    def _finish(self, reason: Reason, now: float) -> None:
        self.finish_reason = reason
        self.ended_at = now
        if reason != "stop_sequence":
            if self._emit(*self._scanner.add(self._decoder.end())) is None:
                self._emit(self._scanner.end(), None)
            else:
                self.finish_reason = "stop_sequence"
        if self._streams and self.logprobs is not None and self._reported < len(self.logprobs):
            self._send("")

    def announce(self) -> None:
        """Tells the reader that the run has ended; its slot is free by then."""
        self.events.put(Ended())

    def _logprob(self, token: int, likely: Likely) -> Logprob:
        logprob, pairs = likely
        top = [
            {"token_id": other, "text": self._name(other), "logprob": value}
            for other, value in pairs
        ]
        return {"token_id": token, "text": self._name(token), "logprob": logprob, "top": top}  # type: ignore[typeddict-item]

    def _name(self, token: int) -> str:
        text: str = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text

    def timings(self, asked_at: float) -> Tuple[float, float, float, Optional[float]]:
        """Milliseconds queued, to the first token, in all; tokens per second after the first."""
        writing = self.ended_at - self.first_at
        rate = (self.completion_tokens - 1) / writing if writing > 0 else None
        return (
            round(1000 * (self.started_at - self.queued_at), 3),
            round(1000 * (self.first_at - asked_at), 3),
            round(1000 * (self.ended_at - asked_at), 3),
            None if rate is None or self.completion_tokens < 2 else round(rate, 3),
        )
