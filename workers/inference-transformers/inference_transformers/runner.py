"""The one thread that uses a model: it reads prompts, writes tokens, and changes adapters between.

Continuous batching: between two passes sequences join and leave the batch, so a call waits for one
pass at most, whatever the others ask for. Long prompts are read in pieces, each between two passes.
"""

import inspect
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Deque, List, Sequence, Tuple, TypeVar

from .adapters import AdapterBank, Applied
from .lanes import Lane, can_share, new_cache
from .runs import TextRun
from .sampling import choose

log = logging.getLogger("inference_transformers")
T = TypeVar("T")


class RunnerStopped(RuntimeError):
    """The model was given back while a call still used it."""


class Runner:
    """Owns a model and its adapters; every use of them happens in its thread."""

    def __init__(self, model: Any, parallel: int, prefill_chunk: int) -> None:
        self.model = model
        self.bank = AdapterBank(model)
        self.parallel = parallel
        accepted = inspect.signature(model.forward).parameters
        #: Whether sequences share a batch.
        self.shares = "position_ids" in accepted and can_share(model.config)
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._chunk = prefill_chunk
        self._changed = threading.Condition()
        self._commands: Deque[Tuple[Callable[[], Any], "Future[Any]"]] = deque()
        self._waiting: Deque[TextRun] = deque()
        self._reading: List[Tuple[TextRun, Any]] = []
        self._lanes: List[Lane[TextRun]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)
        self._thread.start()

    @property
    def device(self) -> Any:
        return self.model.device

    @property
    def active(self) -> int:
        """Sequences that have a slot."""
        return len(self._reading) + sum(len(lane.rows) for lane in self._lanes)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, run: TextRun) -> None:
        with self._changed:
            if self._stopping:
                raise RunnerStopped("the model was given back")
            self._waiting.append(run)
            self._changed.notify()

    def command(self, function: Callable[[], T]) -> "Future[T]":
        """Runs a function between two passes, in the runner's thread."""
        future: "Future[T]" = Future()
        with self._changed:
            if self._stopping:
                raise RunnerStopped("the model was given back")
            self._commands.append((function, future))
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Ends the thread after its pass; what still runs fails."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        import torch

        with torch.inference_mode():
            while self._next():
                self._drop_cancelled()
                self._read()
                self._write()
        error = RunnerStopped("the model was given back")
        for run in [*self._waiting, *(run for run, _ in self._reading), *self._running()]:
            run.fail(error)
        for _, future in self._commands:
            future.set_exception(error)

    def _running(self) -> List[TextRun]:
        return [run for lane in self._lanes for run in lane.rows]

    def _next(self) -> bool:
        """Waits for work, runs commands and hands out slots; False when there is no more."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stopping
                    or self._commands
                    or self._waiting
                    or self._reading
                    or self._lanes
                )
            )
            if self._stopping:
                return False
            commands = list(self._commands)
            self._commands.clear()
        for function, future in commands:
            _settle(function, future)
        return True

    def _drop_cancelled(self) -> None:
        with self._changed:
            if any(run.cancelled for run in self._waiting):
                self._waiting = deque(run for run in self._waiting if not run.cancelled)
        self._reading = [item for item in self._reading if not item[0].cancelled]
        for lane in list(self._lanes):
            self._keep(lane, lambda run: not run.cancelled)

    def _keep(self, lane: Lane[TextRun], wanted: Callable[[TextRun], bool]) -> None:
        places = [place for place, run in enumerate(lane.rows) if wanted(run)]
        if places:
            lane.keep(places)
        else:
            self._lanes.remove(lane)

    def _admit(self) -> None:
        with self._changed:
            while self._waiting and self.active < self.parallel:
                run = self._waiting.popleft()
                run.started_at = time.monotonic()
                self._reading.append((run, new_cache(self.model.config, self.shares)))

    def _read(self) -> None:
        """Reads prompts, as many tokens as one piece has, and writes their first tokens."""
        self._admit()
        budget = self._chunk
        fresh: List[Lane[TextRun]] = []
        while self._reading and budget > 0:
            run, cache = self._reading[0]
            # A recurrent state is only right when a prompt is read at once.
            size = budget if self.shares else len(run.prompt)
            piece = run.prompt[run.read : run.read + size]
            budget -= len(piece)
            if not self._guarded([run], self._read_piece, run, cache, piece):
                self._reading.pop(0)
            elif run.read == len(run.prompt):
                self._reading.pop(0)
                if run.finished:
                    run.announce()
                else:
                    fresh.append(Lane(run, cache, len(run.prompt)))
        self._join(fresh)

    def _read_piece(self, run: TextRun, cache: Any, piece: Sequence[int]) -> None:
        import torch

        self._route([run.applied])
        ids = torch.tensor([piece], device=self.device)
        logits = self._forward({"input_ids": ids}, cache)
        run.read += len(piece)
        if run.read == len(run.prompt):
            self._take([run], logits)

    def _join(self, fresh: List[Lane[TextRun]]) -> None:
        if not self.shares:
            self._lanes += fresh
        elif fresh:
            lanes = [*self._lanes, *fresh]
            if len(lanes) > 1:
                lanes[0].join(lanes[1:])
            self._lanes = lanes[:1]

    def _write(self) -> None:
        """One token more for every sequence that has been read."""
        for lane in list(self._lanes):
            rows = list(lane.rows)
            if self._guarded(rows, self._write_lane, lane):
                self._keep(lane, lambda run: not run.finished)
                for run in rows:
                    if run.finished:
                        run.announce()
            else:
                self._lanes.remove(lane)

    def _write_lane(self, lane: Lane[TextRun]) -> None:
        self._route([run.applied for run in lane.rows])
        logits = self._forward(lane.inputs(self.device), lane.cache)
        lane.advance()
        self._take(lane.rows, logits)

    def _forward(self, inputs: Any, cache: Any) -> Any:
        """Logits of the last column, of shape (rows, vocabulary)."""
        out = self.model(**inputs, past_key_values=cache, use_cache=True, **self._last_only)
        return out.logits[:, -1]

    def _take(self, rows: Sequence[TextRun], logits: Any) -> None:
        tokens, likely = choose(logits, [run.sampler for run in rows])
        for run, token, near in zip(rows, tokens, likely):
            run.take(token, near)

    def _route(self, rows: Sequence[Applied]) -> None:
        self.bank.route(rows, self.device)

    def _guarded(self, rows: Sequence[TextRun], step: Callable[..., None], *given: Any) -> bool:
        """False when the step failed; its sequences have failed with it, the others go on."""
        try:
            step(*given)
        except Exception as error:
            log.warning("a pass of %d sequences failed: %s", len(rows), error)
            for run in rows:
                if not run.finished:
                    run.fail(error)
            return False
        return True

    # What commands compute; call these in the runner's thread only.

    def logprobs(self, ids: Sequence[int], applied: Applied) -> Any:
        """Log-probabilities of what follows each token: float32, (tokens, vocabulary)."""
        import torch

        self._route([applied])
        cache = new_cache(self.model.config, self.shares)
        size = self._chunk if self.shares else len(ids)
        parts = []
        for start in range(0, len(ids), size):
            piece = torch.tensor([ids[start : start + size]], device=self.device)
            out = self.model(input_ids=piece, past_key_values=cache, use_cache=True)
            parts.append(out.logits[0].float().log_softmax(-1))
        return torch.cat(parts)

    def hidden(self, ids: Sequence[int]) -> Any:
        """The base's last hidden states: float32, (tokens, width)."""
        import torch

        self._route([()])
        piece = torch.tensor([ids], device=self.device)
        return self.model.base_model(input_ids=piece).last_hidden_state[0].float()


def _settle(function: Callable[[], Any], future: "Future[Any]") -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
