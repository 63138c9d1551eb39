"""A model in memory and everything that belongs to it; one thread uses it, calls talk to that."""

import os
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple, TypeVar

from cjm_worker import Call

from .adapters import Adapter, Applied, check_fits
from .constraint import Compiler
from .fields import DEFAULT_MAX_TOKENS, Parameters
from .loading import Form, context_length, end_tokens
from .memory import held_mb
from .profiles import Profile, ProfileBook
from .prompts import Prompts
from .runner import Runner, RunnerStopped
from .runs import TextRun
from .sampling import Sampler

T = TypeVar("T")
#: Long enough that an adapter of any use changes something somewhere.
_PROBE = "The quick brown fox asks: what colour is the sky, and how much is 12 + 30?"


def wait_for(future: "Future[T]", call: Optional[Call]) -> T:
    """The future's result; raises at once when the call is cancelled."""
    if call is None:
        return future.result()
    settled = threading.Event()
    future.add_done_callback(lambda _: settled.set())
    with call.cancel_signal_to(settled.set):
        settled.wait()
    call.check_cancel()
    return future.result()


class LoadedModel:
    """The base, its tokenizer, and the adapters that are attached to it at the moment."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sha256: str,
        *,
        form: Form,
        limits: Any,
        profiles: ProfileBook,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompts = Prompts(tokenizer)
        self.sha256 = sha256
        self.form = form
        self.context = context_length(model, limits.context)
        self.runner = Runner(model, limits.parallel, limits.prefill_chunk)
        self.model = model
        self._profiles = profiles
        self._ends = end_tokens(model, tokenizer)
        self._max_adapters = int(limits.max_adapters)
        self._lock = threading.RLock()
        self._compiler: Optional[Compiler] = None
        #: Calls that use an adapter, by its hash; the least recently used first.
        self._users: Dict[str, int] = {}
        #: Adapters that go when the calls that use them have ended.
        self._doomed: Set[str] = set()
        self._effects: Dict[Applied, float] = {}
        #: Adapters that were put into the model since it was loaded.
        self.attached = 0
        self._probe = self.prompts.encode(_PROBE)[: self.context]
        self._probed: Any = None

    @property
    def vocabulary(self) -> int:
        return int(self.model.get_output_embeddings().weight.shape[0])

    def new_run(
        self, prompt: List[int], parameters: Parameters, applied: Applied, *, streams: bool
    ) -> Tuple[TextRun, int]:
        """A run for a prompt, and how many of its tokens the context made it drop."""
        wanted = parameters.max_tokens
        # Only what a caller asked for must fit; the default takes what room there is.
        prompt = prompt or self._empty()
        room = self.context - (wanted or 1)
        if wanted is None and len(prompt) > room and parameters.context_overflow == "truncate":
            room = self.context - min(DEFAULT_MAX_TOKENS, self.context // 4)
        prompt, dropped = self.prompts.fit(prompt, room, parameters.context_overflow, wanted)
        left = self.context - len(prompt)
        limit = wanted if wanted is not None else min(DEFAULT_MAX_TOKENS, left)
        run = TextRun(
            prompt,
            Sampler(parameters, prompt, self._constraint(parameters)),
            self.tokenizer,
            stops=parameters.stops,
            ends=self._ends,
            max_tokens=limit,
            applied=applied,
            streams=streams,
        )
        return run, dropped

    def _empty(self) -> List[int]:
        """An empty prompt is the beginning of a text."""
        start = self.tokenizer.bos_token_id
        return [start if start is not None else next(iter(self._ends), 0)]

    def _constraint(self, parameters: Parameters) -> Any:
        if parameters.json_schema is None and parameters.grammar is None:
            return None
        with self._lock:
            if self._compiler is None:
                self._compiler = Compiler(self.tokenizer, self.vocabulary, sorted(self._ends))
        return self._compiler.compile(parameters.json_schema, parameters.grammar)

    def ask(self, function: Callable[[], T], call: Optional[Call] = None) -> T:
        """Runs a function in the model's thread, between two passes."""
        return wait_for(self.runner.command(function), call)

    @contextmanager
    def holding(self, adapters: Sequence[Adapter], call: Optional[Call]) -> Iterator[None]:
        """While the block runs, these adapters are in the model."""
        digests = [adapter.sha256 for adapter in adapters]
        with self._lock:
            self._doomed.difference_update(digests)
            for digest in digests:
                self._users[digest] = self._users.pop(digest, 0) + 1
        try:
            if adapters:
                # Here, since it takes seconds, and the model's thread has texts to write.
                import peft  # noqa: F401

                self.ask(lambda: self._attach(adapters), call)
            yield
        finally:
            with self._lock:
                for digest in digests:
                    self._users[digest] -= 1
                ended = self._doomed.intersection(digests)
            for digest in ended:
                # Nobody waits for it; when the model itself is given back, so is the adapter.
                with suppress(RunnerStopped):
                    self.runner.command(partial(self.drop, digest))

    def measured(self, began: float, before: float) -> None:
        """Keeps what the model, with the adapters that are in it, took since ``began``."""
        import torch

        form, total = self.form, held_mb(self.form.device)
        self._profiles.record(
            Profile(
                model_sha256=self.sha256,
                quantization=form.dtype if form.quantization == "none" else form.quantization,
                device=form.device,
                context_size=self.context,
                slots=self.runner.parallel,
                adapters=",".join(sorted(self.runner.bank.held)),
                threads=torch.get_num_threads(),
                load_ms=round(1000 * (time.monotonic() - began)),
                memory_mb=round(total - before, 1),
                total_mb=round(total, 1),
            )
        )

    def _attach(self, adapters: Sequence[Adapter]) -> None:
        began, before = time.monotonic(), held_mb(self.form.device)
        known = self.attached
        for adapter in adapters:
            if adapter.sha256 not in self.runner.bank.held:
                adapter.check_unchanged()
                check_fits(adapter, self.model, self.sha256)
                self.runner.bank.attach(adapter)
                adapter.check_unchanged()
                self.attached += 1
        if self.attached > known:
            self.measured(began, before)
        self._evict(self._max_adapters)

    def _evict(self, limit: int) -> None:
        """Takes out adapters that no call uses, beginning with the least recently used."""
        bank = self.runner.bank
        with self._lock:
            held = set(bank.held)
            idle = [digest for digest, users in self._users.items() if not users]
            surplus = [digest for digest in idle if digest in held][: max(0, len(held) - limit)]
            for digest in [*surplus, *(digest for digest in idle if digest not in held)]:
                del self._users[digest]
        for digest in surplus:
            bank.detach(digest)

    def drop(self, digest: str) -> bool:
        """Takes an adapter out; False while calls use it: it goes when they have ended."""
        with self._lock:
            if self._users.get(digest):
                self._doomed.add(digest)
                return False
            self._users.pop(digest, None)
            self._doomed.discard(digest)
        self.runner.bank.detach(digest)
        return True

    def effect(self, applied: Applied) -> float:
        """The largest change of a log-probability on the probe; in the model's thread."""
        if applied not in self._effects:
            if self._probed is None:
                self._probed = self.runner.logprobs(self._probe, ())
            changed = self.runner.logprobs(self._probe, applied)
            self._effects[applied] = round(float((changed - self._probed).abs().max()), 6)
        return self._effects[applied]

    def move(self, device: str) -> None:
        """Moves base and adapters; in the model's thread."""
        self.model.to(device)
        self._probed = None

    def close(self) -> None:
        self.runner.stop()


def data_folder() -> str:
    """Folder of the capability, kept between runs."""
    folder = os.environ.get("CAPABILITY_DATA_DIR") or ".inference-transformers"
    os.makedirs(folder, exist_ok=True)
    return folder
