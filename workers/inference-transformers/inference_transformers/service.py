"""What calls ask for, answered with the model: adapters are found, texts are run, results made."""

import re
import threading
import time
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from cjm_worker import Call, CapabilityInputError

from .adapters import Adapter, AdapterFinder, Applied
from .engine import LEVELS, Engine
from .fields import (
    PARAMETER_NAMES,
    AdapterInfo,
    AdapterUse,
    AppliedAdapter,
    Delta,
    Done,
    Embeddings,
    Evidence,
    Generation,
    Message,
    NextToken,
    Parameters,
    PromptUsage,
    Score,
    ScoredToken,
    Sha256,
    Status,
    Timings,
    Usage,
)
from .loaded import LoadedModel
from .problems import TaskInputError
from .registry import find_registered
from .runner import RunnerStopped
from .runs import Ended, TextRun

ENGINE = "transformers"
Input = Union[str, List[Message]]
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


class Use(NamedTuple):
    """An adapter of one call."""

    id: str
    adapter: Adapter
    scale: float


def applied_of(uses: Sequence[Use]) -> Applied:
    return tuple((use.adapter.sha256, use.scale) for use in uses)


def reported(uses: Sequence[Use]) -> List[AppliedAdapter]:
    return [AppliedAdapter(use.id, use.adapter.sha256, use.scale) for use in uses]


class Service:
    """The methods of the task on one engine, and the names of its adapters."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        #: Folder of the registry that a ``registry_id`` means.
        self.registry: Optional[str] = None
        self._finder = AdapterFinder()
        self._lock = threading.Lock()
        self._named: Dict[str, Adapter] = {}

    def on(self, engine: Engine) -> "Service":
        """The same names on another engine; an adapter that does not fit its model is refused."""
        service = Service(engine)
        service._named.update(self._named)
        return service

    def _resolve(self, uses: Optional[Sequence[AdapterUse]]) -> List[Use]:
        found: List[Use] = []
        for place, use in enumerate(uses or []):
            field = f"adapters[{place}]"
            if use.id is None:
                adapter = self._find(use, field)
                name = use.registry_id or adapter.sha256.partition(":")[2][:12]
                found.append(Use(name, adapter, use.scale))
                continue
            with self._lock:
                adapter_or_none = self._named.get(use.id)
            if adapter_or_none is None:
                raise TaskInputError("adapter_unknown", f"no adapter {use.id} is loaded", [field])
            if use.sha256 not in (None, adapter_or_none.sha256):
                message = f"{use.id} is {adapter_or_none.sha256}, not {use.sha256}"
                raise TaskInputError("adapter_hash", message, [field])
            found.append(Use(use.id, adapter_or_none, use.scale))
        return found

    def _find(self, use: AdapterUse, field: str) -> Adapter:
        """By path or, where there is none, as the registry has it."""
        if use.path is not None:
            return self._finder.find(use.path, use.sha256, field)
        stored = find_registered(self.registry, use.registry_id or "", field)
        adapter = self._finder.find(stored.path, stored.sha256, field)
        if use.sha256 not in (None, adapter.sha256):
            message = f"{use.registry_id} is {adapter.sha256}, not {use.sha256}"
            raise TaskInputError("adapter_hash", message, [field])
        return adapter

    @contextmanager
    def _using(
        self, uses: Sequence[Use], call: Call
    ) -> "Iterator[Tuple[LoadedModel, Optional[float]]]":
        """The model with the adapters in it, and what they change together."""
        with self.engine.lease(call) as model:
            with model.holding([use.adapter for use in uses], call):
                effect = None
                if uses:
                    effect = model.ask(lambda: model.effect(applied_of(uses)), call)
                yield model, effect

    def generate(self, source: Input, parameters: Parameters, call: Call) -> Generation:
        chunks = self._run(source, parameters, call, streams=False)
        return next(chunk["result"] for chunk in chunks if chunk["type"] == "done")

    def stream(
        self, source: Input, parameters: Parameters, call: Call
    ) -> "Iterator[Union[Delta, Done]]":
        return self._run(source, parameters, call, streams=True)

    def _run(
        self, source: Input, parameters: Parameters, call: Call, *, streams: bool
    ) -> "Iterator[Union[Delta, Done]]":
        asked_at = time.monotonic()
        uses = self._resolve(parameters.adapters)
        with self._using(uses, call) as (model, effect):
            prompt = _prompt(model, source)
            run, dropped = model.new_run(prompt, parameters, applied_of(uses), streams=streams)
            with call.cancel_signal_to(run.cancel):
                model.runner.submit(run)
                try:
                    yield from _deltas(run, call)
                finally:
                    run.cancelled = True
            evidence = self._evidence(model, effect, dropped)
        call.report_usage(
            {"prompt_tokens": len(run.prompt), "completion_tokens": run.completion_tokens}
        )
        if uses:
            call.record_account("adapters_applied", {"adapters": reported(uses), "effect": effect})
        yield {"type": "done", "result": _generation(run, uses, evidence, asked_at)}

    def _evidence(self, model: LoadedModel, effect: Optional[float], dropped: int) -> Evidence:
        return Evidence(
            engine=ENGINE,
            engine_version=version(ENGINE),
            model=self.engine.folder().name,
            model_sha256=model.sha256,
            adapter_effect=effect,
            prompt_truncated_tokens=dropped,
        )

    def embed(self, texts: Sequence[str], normalize: bool, call: Call) -> Embeddings:
        """The mean of the base's last hidden states over the tokens of each text."""
        import torch

        with self.engine.lease(call) as model:
            prompts = [model.prompts.encode(text) for text in texts]
            for place, ids in enumerate(prompts):
                _check_length(model, ids, f"input[{place}]")
            rows = []
            for ids in prompts:
                row = model.ask(lambda ids=ids: model.runner.hidden(ids).mean(0).cpu(), call)  # type: ignore[misc]
                rows.append(torch.nn.functional.normalize(row, dim=0) if normalize else row)
            embeddings = [row.tolist() for row in rows]
            tokens = sum(map(len, prompts))
            call.report_usage({"prompt_tokens": tokens})
            return Embeddings(embeddings, len(embeddings[0]), PromptUsage(tokens), model.sha256)

    def score(
        self, prompt: str, top: int, adapters: Optional[List[AdapterUse]], call: Call
    ) -> Score:
        uses = self._resolve(adapters)
        with self._using(uses, call) as (model, _):
            ids = model.prompts.encode(prompt)
            _check_length(model, ids, "prompt")
            applied = applied_of(uses)
            logprobs = model.ask(lambda: model.runner.logprobs(ids, applied).cpu(), call)
            return _score(model, ids, logprobs, top, reported(uses))

    def count_tokens(self, source: Input, call: Call) -> int:
        with self.engine.lease(call) as model:
            return len(_prompt(model, source))

    def load_adapter(self, name: str, source: AdapterUse, call: Call) -> Tuple[AdapterInfo, float]:
        """Gives what ``source`` says by path or registry a name; its ``id`` is not looked at."""
        if not _ID.fullmatch(name):
            message = f"{name!r} is no id: letters, digits, and . _ : -"
            raise CapabilityInputError(message, fields_invalid=["id"])
        adapter = self._find(source, "path")
        self._check_free(name, adapter)
        with self._using([Use(name, adapter, 1.0)], call) as (_, effect):
            with self._lock:
                self._check_free_locked(name, adapter)
                self._named[name] = adapter
        call.record_account("adapter_loaded", {"id": name, "sha256": adapter.sha256})
        return adapter.info(name), effect or 0.0

    def _check_free(self, name: str, adapter: Adapter) -> None:
        with self._lock:
            self._check_free_locked(name, adapter)

    def _check_free_locked(self, name: str, adapter: Adapter) -> None:
        known = self._named.get(name)
        if known is not None and known.sha256 != adapter.sha256:
            message = f"{name} names {known.sha256} already"
            raise TaskInputError("adapter_id_taken", message, ["id"])

    def unload_adapter(self, name: str, call: Call) -> Tuple[Sha256, str]:
        """The hash of what the name meant, and what memory stays in use."""
        with self._lock:
            adapter = self._named.pop(name, None)
            if adapter is None:
                raise TaskInputError("adapter_unknown", f"no adapter {name} is loaded", ["id"])
            others = [n for n, other in self._named.items() if other.sha256 == adapter.sha256]
        if others:
            return adapter.sha256, f"the same adapter under the name {others[0]}"
        model = self.engine.loaded
        if model is None:
            return adapter.sha256, ""
        try:
            gone = model.ask(lambda: model.drop(adapter.sha256), call)
        except RunnerStopped:
            gone = True
        return adapter.sha256, "" if gone else "the adapter, until the calls that use it end"

    def status(self) -> Status:
        model = self.engine.loaded
        bank = model.runner.bank.held if model else []
        return Status(
            engine=ENGINE,
            engine_version=version(ENGINE),
            parameters=PARAMETER_NAMES,
            release_levels=list(LEVELS),
            state=self.engine.state,
            active=model.runner.active if model else 0,
            waiting=model.runner.waiting if model else 0,
            slots=self.engine.config.parallel,
            adapters=sorted(bank),
            loads=self.engine.loads + (model.attached if model else 0),
        )

    def list_adapters(self) -> List[AdapterInfo]:
        with self._lock:
            named = sorted(self._named.items())
        return [adapter.info(name) for name, adapter in named]


def _prompt(model: LoadedModel, source: Input) -> List[int]:
    return model.prompts.encode(source) if isinstance(source, str) else model.prompts.chat(source)


def _check_length(model: LoadedModel, ids: Sequence[int], field: str) -> None:
    if not ids:
        raise CapabilityInputError(f"{field} has no tokens", fields_invalid=[field])
    if len(ids) > model.context:
        message = f"{field} has {len(ids)} tokens, the context {model.context}"
        raise TaskInputError("context_overflow", message, [field])


def _deltas(run: TextRun, call: Call) -> Iterator[Delta]:
    """What the run gives, until it ends. Raises what it failed with, or the call's cancel."""
    while True:
        event = run.events.get()
        if isinstance(event, Ended):
            if event.error is not None:
                raise event.error
            if not run.finished:
                call.check_cancel()
            return
        yield event


def _generation(
    run: TextRun, uses: Sequence[Use], evidence: Evidence, asked_at: float
) -> Generation:
    assert run.finish_reason is not None
    prompt, written = len(run.prompt), run.completion_tokens
    return Generation(
        text=run.text,
        finish_reason=run.finish_reason,
        stop_sequence=run.stop_sequence,
        seed=run.sampler.seed,
        usage=Usage(prompt, 0, written, prompt + written),
        timings=Timings(*run.timings(asked_at)),
        adapters=reported(uses),
        logprobs=run.logprobs,
        evidence=evidence,
    )


def _score(
    model: LoadedModel, ids: List[int], logprobs: Any, top: int, adapters: List[AppliedAdapter]
) -> Score:
    best = logprobs.topk(min(top, logprobs.shape[-1]), dim=-1)
    following = [
        [NextToken(token, value) for token, value in zip(tokens, values)]
        for tokens, values in zip(best.indices.tolist(), best.values.tolist())
    ]
    given: List[Optional[float]] = [None]
    given += [float(logprobs[place, token]) for place, token in enumerate(ids[1:])]
    names = [model.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]
    tokens = [ScoredToken(*item) for item in zip(ids, names, given)]
    return Score(tokens, following, adapters)
