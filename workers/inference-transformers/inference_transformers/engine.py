"""When the model is in memory: loaded by the first call, given back when idle or when asked."""

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Literal, Optional

from cjm_worker import Call, CapabilityInputError, ReleaseReply

from .loaded import LoadedModel, data_folder, wait_for
from .loading import Form, decide_device, decide_dtype, load_model, load_tokenizer
from .memory import give_back, held_mb
from .model_files import HashCache, ModelFolder
from .profiles import ProfileBook

log = logging.getLogger("inference_transformers")
LEVELS = ("sleep", "unload")
#: Difference of a log-probability on the probe that a move to the CPU and back may leave.
_SAME = 1e-3


class Engine:
    """Owns the model's life; calls borrow it with :meth:`lease`."""

    def __init__(self, config: Any) -> None:
        self.config = config
        #: Loads since the start.
        self.loads = 0
        self._changed = threading.Condition()
        self._model: Optional[LoadedModel] = None
        self._asleep = False
        self._loading: "Optional[Future[None]]" = None
        self._watchers: List[Call] = []
        self._users = 0
        self._releasing = False
        self._used_at = time.monotonic()
        self._closed = False
        self._idler: Optional[threading.Thread] = None

    @property
    def state(self) -> Literal["unloaded", "loading", "loaded", "asleep"]:
        if self._loading is not None:
            return "loading"
        if self._model is None:
            return "unloaded"
        return "asleep" if self._asleep else "loaded"

    @property
    def loaded(self) -> Optional[LoadedModel]:
        return self._model

    def folder(self) -> ModelFolder:
        return ModelFolder(self.config.model)

    def hashes(self) -> HashCache:
        return HashCache(Path(data_folder()) / "fingerprints.json")

    def profiles(self) -> ProfileBook:
        """What loading took, on this machine."""
        return ProfileBook(Path(data_folder()) / "profiles.json")

    @contextmanager
    def lease(self, call: Call) -> Iterator[LoadedModel]:
        """The model, loaded; it stays so while the block runs. However many ask, one loads."""
        model = self._borrow(call)
        try:
            yield model
        finally:
            with self._changed:
                self._users -= 1
                self._used_at = time.monotonic()
                self._changed.notify_all()

    def _borrow(self, call: Call) -> LoadedModel:
        while True:
            with self._changed:
                if self._ready():
                    self._users += 1
                    assert self._model is not None
                    return self._model
                future = self._loading
                if future is None and not self._releasing:
                    future = self._start_load()
                if future is not None:
                    self._watchers.append(call)
            if future is None:
                self._wait_released(call)
                continue
            try:
                wait_for(future, call)
            finally:
                with self._changed:
                    self._watchers.remove(call)

    def _ready(self) -> bool:
        return self._model is not None and not (self._asleep or self._releasing or self._loading)

    def _wait_released(self, call: Call) -> None:
        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        with call.cancel_signal_to(wake), self._changed:
            self._changed.wait_for(lambda: not self._releasing or call.cancelled)
        call.check_cancel()

    def _start_load(self) -> "Future[None]":
        if self._closed:
            raise RuntimeError("the worker is ending")
        future: "Future[None]" = Future()
        self._loading = future
        threading.Thread(target=self._load, args=(future,), name="loader", daemon=True).start()
        return future

    def _load(self, future: "Future[None]") -> None:
        """Loads or wakes; a thread of its own, so that a cancelled caller does not wait for it."""
        error: Optional[BaseException] = None
        try:
            woken = self._model is not None and self._wake(self._model)
            model = self._model if woken else self._load_model()
        except BaseException as failed:
            error, model = failed, None
        with self._changed:
            if self._closed and model is not None:
                model.close()
                error, model = RuntimeError("the worker is ending"), None
            self._model = model
            self._asleep = False
            self._loading = None
            self._used_at = time.monotonic()
            if model is not None:
                self._watch_idle()
            self._changed.notify_all()
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def _load_model(self) -> LoadedModel:
        import torch

        folder = self.folder()
        folder.check()
        device = decide_device(self.config.device)
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        form = Form(device, decide_dtype(self.config.dtype, device), self.config.quantization)
        digest = self.hashes().of(folder, lambda done: self._tell(done / 4, "hashing"))
        tokenizer = load_tokenizer(folder)
        began, before = time.monotonic(), held_mb(device)
        base = load_model(folder, form, lambda done: self._tell(0.25 + 0.7 * done, "loading"))
        model = LoadedModel(
            base, tokenizer, digest, form=form, limits=self.config, profiles=self.profiles()
        )
        model.measured(began, before)
        self.loads += 1
        self._tell(1.0, "loaded")
        return model

    def _wake(self, model: LoadedModel) -> bool:
        """Moves a sleeping model back; False, and the model is gone, if it answers otherwise."""
        before = model.ask(lambda: model.runner.logprobs(model._probe, ()))
        self._tell(0.1, "waking")
        model.ask(lambda: model.move(model.form.device))
        after = model.ask(lambda: model.runner.logprobs(model._probe, ()))
        # Half precision differs between devices by more than a move could.
        bound = _SAME if model.form.dtype == "float32" else 0.25
        if float((after.cpu() - before.cpu()).abs().max()) <= bound:
            return True
        log.warning("the model answered otherwise after it was woken; it is loaded anew")
        model.close()
        self._model = None
        return False

    def _tell(self, done: float, what: str) -> None:
        with self._changed:
            watchers = list(self._watchers)
        for call in watchers:
            call.report_progress(done, f"{what} {Path(self.config.model or '').name}")

    def _watch_idle(self) -> None:
        seconds = self.config.idle_unload_seconds
        if seconds is not None and (self._idler is None or not self._idler.is_alive()):
            self._idler = threading.Thread(target=self._idle, name="idle", daemon=True)
            self._idler.start()

    def _idle(self) -> None:
        """Gives the model back when no call has used it for long enough."""
        while True:
            with self._changed:
                seconds = self.config.idle_unload_seconds
                if self._model is None or self._closed or seconds is None:
                    return
                left = self._used_at + seconds - time.monotonic()
                if self._users or left > 0:
                    self._changed.wait(None if self._users else left)
                    continue
            reply = self.release("unload")
            log.info("unloaded after %s idle seconds, %s MB given back", seconds, reply.freed_mb)

    def release(self, level: str) -> ReleaseReply:
        """Gives memory back once running calls have ended; what that freed is measured."""
        if level not in LEVELS:
            raise CapabilityInputError(
                f"no level {level}; there are {' and '.join(LEVELS)}", fields_invalid=["level"]
            )
        with self._changed:
            self._changed.wait_for(lambda: not (self._releasing or self._loading))
            self._releasing = True
            self._changed.wait_for(lambda: not self._users)
        try:
            return self._give_back(level)
        finally:
            with self._changed:
                self._releasing = False
                self._changed.notify_all()

    def _give_back(self, level: str) -> ReleaseReply:
        if self._model is None:
            return ReleaseReply("", 0.0)
        device = self._model.form.device
        before = held_mb(device)
        kept = self._let_go(self._model, level)
        give_back(device)
        after = held_mb(device)
        if level == "unload" and after:
            where = "VRAM, of the allocator" if device == "cuda" else "host memory, of the process"
            kept = f"{after:.0f} MB of {where}"
        return ReleaseReply(kept, round(max(0.0, before - after), 1))

    def _let_go(self, model: LoadedModel, level: str) -> str:
        """What is kept; no reference to the rest may outlive this, or nothing would be freed."""
        if level == "unload":
            model.close()
            self._model = None
            return ""
        if model.form.device == "cpu":
            return "the model, which is in host memory already; only unload frees that"
        model.ask(lambda: model.move("cpu"))
        self._asleep = True
        return "the model, in host memory"

    def close(self) -> None:
        """Ends everything; running calls fail."""
        with self._changed:
            self._closed = True
            model, self._model = self._model, None
            self._changed.notify_all()
        if model is not None:
            model.close()
