"""The capability: its configuration, its actions, and the memory it holds."""

import logging
import os
import re
import shutil
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, Mapping, Optional, Tuple, Union

from cjm_worker import (
    Call,
    Capability,
    CapabilityInputError,
    CapabilityResourceError,
    DirRef,
    FileRef,
    ReleaseReply,
    ResourceShortfall,
    action,
)
from cjm_worker.errors import is_out_of_memory
from cjm_worker.files import hash_file

from .checkpoints import RunFolder, read_json, write_json
from .reports import EvalReport, MergeReport, PlanReport, TrainReport
from .settings import TrainSettings

log = logging.getLogger("qlora_trainer")

class _Format(Dict[str, str]):
    """A JSON Schema ``format``; hashable, so that it may stand in a Union."""

    __hash__ = object.__hash__  # type: ignore[assignment]


#: Their formats tell the host to hash what lies there, and from where a relative path counts.
Folder = Union[DirRef, Annotated[str, _Format(format="cjm-dir")]]
Data = Union[FileRef, Annotated[str, _Format(format="cjm-file")]]
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def path_of(place: Union[DirRef, FileRef, str, None]) -> Optional[str]:
    """The path of an input; a file given by reference must still be what the reference says."""
    if isinstance(place, FileRef):
        place.verify()
    return place.path if isinstance(place, (DirRef, FileRef)) else place


class QloraTrainer(Capability):
    """Trains LoRA adapters on quantised language models, resumable to the bit."""

    name = "qlora-trainer"
    version = "0.1.0"

    @dataclass
    class Config:
        device: Literal["auto", "cpu", "cuda"] = field(
            default="auto",
            metadata={"description": "auto: cuda where there is one.", "reload_trigger": "base"},
        )
        threads: Optional[int] = field(
            default=None,
            metadata={
                "description": "Threads of torch on the CPU; null: its own choice. Results are "
                "equal to the bit only for equal numbers.",
                "minimum": 1,
            },
        )
        keep_base: bool = field(
            default=False,
            metadata={
                "description": "Keep the base model in memory between runs.",
                "reload_trigger": "base",
            },
        )
        runs_dir: Optional[str] = field(
            default=None,
            metadata={"description": "Where runs keep checkpoints; null: the data folder."},
        )

    def __init__(self) -> None:
        #: What a kept base was loaded as, and the model.
        self._base: Optional[Tuple[Tuple[str, ...], Any]] = None

    def initialize(self, config: Any) -> None:
        # Nothing is downloaded: models are folders.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    def prefetch(self) -> None:
        with self.heartbeat("loading torch, transformers and peft"):
            self._device()

    def _release_base(self) -> None:
        self._base = None

    def release(self, level: str) -> ReleaseReply:
        """Drops a kept base; what that gave back is measured."""
        from .memory import give_back, held_mb

        device = self._device()
        before = held_mb(device)
        self._release_base()
        give_back(device)
        after = held_mb(device)
        held = f"{after:.0f} MB of {'VRAM' if device == 'cuda' else 'memory'}" if after else ""
        return ReleaseReply(held, max(0.0, round(before - after, 1)))

    def _device(self) -> str:
        import torch

        from .models import quiet_libraries

        quiet_libraries()
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        available = torch.cuda.is_available()
        if self.config.device == "cuda" and not available:
            raise CapabilityInputError(
                "device is cuda, but torch finds no CUDA device", fields_invalid=["device"]
            )
        return "cuda" if available and self.config.device != "cpu" else "cpu"

    def _data_dir(self) -> Path:
        chosen = os.environ.get("CAPABILITY_DATA_DIR") or ".qlora-trainer"
        Path(chosen).mkdir(parents=True, exist_ok=True)
        return Path(chosen)

    def _run_folder(self, run: str) -> RunFolder:
        if not _RUN_NAME.fullmatch(run):
            raise CapabilityInputError(
                f"{run!r} is no name for a run: letters, digits, dot, dash and underscore",
                fields_invalid=["run"],
            )
        runs = Path(self.config.runs_dir) if self.config.runs_dir else self._data_dir() / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        return RunFolder(runs / run)

    def _prepare(self, order: Any, call: Call) -> Any:
        from .prepare import prepare

        with call.heartbeat("reading the data"):
            return prepare(order, self._device(), self._data_dir() / "fingerprints.json", call)

    @action(repeatable=False)
    def plan(
        self,
        model: Folder,
        dataset: Data,
        call: Call,
        settings: TrainSettings = TrainSettings(),
        eval_dataset: Optional[Data] = None,
        adapter: Optional[Folder] = None,
    ) -> PlanReport:
        """Tokenises the data and says what a run would do, cost and drop; trains nothing."""
        from .planning import report_plan

        order = _order(model, dataset, eval_dataset, adapter, settings)
        return report_plan(self._prepare(order, call), self._data_dir())

    # Everything random in a run comes from `settings.seed`.
    @action(default=True, repeatable=True)
    def train(
        self,
        model: Folder,
        dataset: Data,
        call: Call,
        settings: TrainSettings = TrainSettings(),
        eval_dataset: Optional[Data] = None,
        adapter: Annotated[Optional[Folder], "An adapter to continue (warm start)"] = None,
        run: Annotated[Optional[str], "Name to resume by; the job's id unless given"] = None,
    ) -> TrainReport:
        """Trains an adapter; a retry of the same job goes on where its last checkpoint is."""
        order = _order(model, dataset, eval_dataset, adapter, settings)
        with self._run_folder(run or call.job_id or f"run-{uuid.uuid4().hex}") as folder:
            again = _is_retry(folder, call.job_id)
            prepared = self._prepare(order, call)
            if not again:
                record = {"job_id": call.job_id, "order": order.to_json()}
                write_json(folder.record_file, {**record, "identity": _identity(prepared)})
            return self._train(prepared, folder, call)

    @action
    def resume(self, run: str, call: Call) -> TrainReport:
        """Goes on with a run that was cancelled, killed or failed, from its last checkpoint."""
        from .prepare import Order

        place = self._run_folder(run)
        if not place.record_file.exists():
            known = sorted(item.parent.name for item in place.folder.parent.glob("*/run.json"))
            raise CapabilityInputError(
                f"no run {run}; there are {', '.join(known) or 'none'}", fields_invalid=["run"]
            )
        with place as folder:
            if folder.finished_file.exists():
                raise CapabilityInputError(f"run {run} is finished", fields_invalid=["run"])
            order = Order.from_json(read_json(folder.record_file)["order"])
            return self._train(self._prepare(order, call), folder, call)

    def _train(self, prepared: Any, folder: RunFolder, call: Call) -> TrainReport:
        from .memory import advice, predict_mb
        from .prepare import check_disk

        recorded = read_json(folder.record_file)["identity"]
        changed = [k for k, value in _identity(prepared).items() if recorded.get(k) != value]
        if changed:
            raise CapabilityInputError(
                f"the run {folder.folder.name} was started with other inputs: "
                f"{', '.join(changed)} differ",
                fields_invalid=["run"],
            )
        check_disk(prepared, folder.folder)
        check_disk(prepared, Path(call.output_folder))
        try:
            return self._train_checked(prepared, folder, call)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            free, needed = _memory_numbers(prepared.device, sum(predict_mb(prepared).values()))
            resource = "gpu_vram_mb" if prepared.device == "cuda" else "system_ram_mb"
            raise CapabilityResourceError(
                f"out of memory: about {needed:.0f} MB needed, {free:.0f} MB there; "
                + advice(prepared, free, needed),
                resource_shortfall=ResourceShortfall(resource, round(needed), round(free)),
            ) from error
        finally:
            self._after_run(prepared.device)

    def _after_run(self, device: str) -> None:
        from .memory import give_back

        if not self.config.keep_base:
            self._base = None
        give_back(device)

    def _train_checked(self, prepared: Any, folder: RunFolder, call: Call) -> TrainReport:
        from .models import add_adapter
        from .training import Training

        began = time.monotonic()
        checkpoint, damaged = folder.newest_checkpoint()
        for problem in damaged:
            log.warning("%s", problem)
        with call.heartbeat(f"loading {prepared.folder.name}"):
            base = self._load_base(prepared)
            order = prepared.order
            warm = Path(order.adapter) if order.adapter and checkpoint is None else None
            model = add_adapter(base, prepared.settings, warm)
        training = Training(prepared, folder, model, call)
        try:
            if checkpoint is None:
                folder.trim_metrics(0)
            else:
                training.restore(checkpoint)
            start = training.state.step
            _account_start(prepared, start, call)
            training.run()
            report = self._report(training, folder, call, began)
            report.resumed_from_step = None if checkpoint is None else start
            report.warnings = [*prepared.warnings, *damaged]
            return report
        finally:
            if self.config.keep_base:
                model.unload()

    def _load_base(self, prepared: Any) -> Any:
        from .models import load_base

        settings = prepared.settings
        form = (
            prepared.identity.model_sha256,
            prepared.device,
            settings.quantization,
            str(settings.double_quantization),
            settings.compute_dtype,
        )
        if self._base is not None and self._base[0] == form:
            return self._base[1]
        self._base = None
        base = load_base(prepared.folder, settings, prepared.device)
        if self.config.keep_base:
            self._base = (form, base)
        return base

    def _report(self, training: Any, folder: RunFolder, call: Call, began: float) -> TrainReport:
        from .memory import Profiles, predict_mb
        from .models import CARD_NAME, WEIGHTS_NAME
        from .output import write_adapter

        prepared, state, pace = training.prepared, training.state, training.pace
        output = Path(call.output_folder)
        adapter = write_adapter(training, output)
        metrics = output / "metrics.jsonl"
        shutil.copyfile(folder.metrics_file, metrics)
        # A copy: the host takes the adapter's folder away as a whole.
        card = output / CARD_NAME
        shutil.copyfile(adapter / CARD_NAME, card)
        profiles = Profiles(self._data_dir() / "profiles.json")
        key = profiles.key(prepared)
        predicted = sum(predict_mb(prepared).values())
        expected, _, _ = profiles.corrected(key, predicted)
        peak, rate = training.meter.peak_mb(), pace.rate(pace.tokens)
        if pace.steps:
            profiles.add(key, predicted, peak, rate)
        losses: List[float] = training.losses()
        report = TrainReport(
            run=folder.folder.name,
            adapter=DirRef.of(adapter),
            weights_sha256=hash_file(adapter / WEIGHTS_NAME),
            card=FileRef.of(card, "application/json"),
            metrics=FileRef.of(metrics, "application/jsonl"),
            steps=state.step,
            steps_executed=pace.steps,
            resumed_from_step=None,
            first_loss=losses[0],
            final_loss=losses[-1],
            eval_loss=state.eval_loss,
            eval_accuracy=state.eval_accuracy,
            stopped_early=state.stopped_early,
            supervised_tokens=state.supervised_tokens,
            supervised_tokens_per_second=round(pace.rate(pace.supervised), 1),
            peak_mb=round(peak, 1),
            predicted_peak_mb=round(expected, 1),
            seconds=round(time.monotonic() - began, 3),
            warnings=[],
        )
        write_json(folder.finished_file, {"weights_sha256": report.weights_sha256})
        finished = {"steps": state.step, "loss": losses[-1], "weights": report.weights_sha256}
        call.record_account("training_finished", finished)
        call.report_usage({"supervised_tokens": pace.supervised, "tokens": pace.tokens})
        return report

    @action
    def evaluate(
        self,
        model: Folder,
        dataset: Data,
        call: Call,
        adapter: Optional[Folder] = None,
        settings: TrainSettings = TrainSettings(),
        answers: Annotated[bool, "Let the model answer every row, and compare"] = False,
        max_answer_tokens: Annotated[int, {"minimum": 1, "maximum": 4096}] = 256,
    ) -> EvalReport:
        """Loss, token accuracy and, if asked for, exact answers on a data set."""
        from .evaluation import evaluate

        prepared = self._prepare(_order(model, dataset, None, None, settings), call)
        limit = max_answer_tokens if answers else None
        try:
            with call.heartbeat("evaluating"):
                base = self._load_base(prepared)
                return evaluate(prepared, base, path_of(adapter), limit)
        finally:
            self._after_run(prepared.device)

    @action
    def merge_into_base(
        self,
        model: Folder,
        adapter: Folder,
        call: Call,
        dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
    ) -> MergeReport:
        """Writes the base with the adapter added to its weights, unquantised."""
        from .evaluation import merge

        device = self._device()
        try:
            with call.heartbeat("merging"):
                cache = self._data_dir() / "fingerprints.json"
                places = (str(path_of(model)), str(path_of(adapter)))
                return merge(places, cache, dtype, Path(call.output_folder))
        finally:
            self._after_run(device)


def _order(
    model: Folder,
    dataset: Data,
    eval_dataset: Optional[Data],
    adapter: Optional[Folder],
    settings: TrainSettings,
) -> Any:
    from .prepare import Order

    return Order(
        os.path.abspath(str(path_of(model))),
        os.path.abspath(str(path_of(dataset))),
        None if eval_dataset is None else os.path.abspath(str(path_of(eval_dataset))),
        None if adapter is None else os.path.abspath(str(path_of(adapter))),
        settings,
    )


def _identity(prepared: Any) -> Mapping[str, Optional[str]]:
    from cjm_worker.schema import to_plain

    return dict(to_plain(prepared.identity))


def _is_retry(folder: RunFolder, job_id: Optional[str]) -> bool:
    """Whether the host runs the same job again. Raises when the run is somebody else's."""
    if not folder.record_file.exists():
        return False
    if job_id is not None and read_json(folder.record_file)["job_id"] == job_id:
        folder.finished_file.unlink(missing_ok=True)
        return True
    state = "is finished" if folder.finished_file.exists() else "can be continued with resume"
    raise CapabilityInputError(
        f"there is a run {folder.folder.name} already, which {state}; give another name",
        fields_invalid=["run"],
    )


def _account_start(prepared: Any, start: int, call: Call) -> None:
    identity = _identity(prepared)
    steps = prepared.schedule.total_steps
    call.record_account("training_started", {**identity, "from_step": start, "steps": steps})


def _memory_numbers(device: str, predicted: float) -> Tuple[float, float]:
    """What is there and what is needed at least, in MB of 10**6."""
    if device == "cuda":
        import torch

        total = torch.cuda.mem_get_info()[1] / 1e6
        return total, max(predicted, total * 1.05)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    return free, max(predicted, free * 1.05)
