"""The loop: steps, watchdog, evaluations, checkpoints, and what is told meanwhile."""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional

from cjm_worker import (
    Call,
    CapabilityError,
    CapabilityFatalError,
    CapabilityResourceError,
    ResourceShortfall,
)

from . import checkpoints, random_state
from .batches import step_batches
from .checkpoints import Checkpoint, RunFolder
from .memory import PeakMeter
from .models import adapter_tensors, load_weights
from .prepare import Prepared, identity_hash
from .steps import Stepper, StepResult, learning_rate, make_optimizer

log = logging.getLogger("qlora_trainer")


@dataclass
class Progress:
    """What a checkpoint remembers besides tensors."""

    step: int = 0
    supervised_tokens: int = 0
    first_loss: Optional[float] = None
    last_loss: Optional[float] = None
    high_losses: int = 0
    eval_loss: Optional[float] = None
    eval_accuracy: Optional[float] = None
    best_eval_loss: Optional[float] = None
    evals_without_gain: int = 0
    stopped_early: bool = False
    #: Metrics of a step whose evaluation a cancel cut short; it is made up for when resumed.
    pending: Optional[Dict[str, Any]] = None


@dataclass
class Pace:
    """What this call did; a resumed run counts from its checkpoint."""

    started: float = field(default_factory=time.monotonic)
    steps: int = 0
    tokens: int = 0
    supervised: int = 0
    training_seconds: float = 0.0

    def rate(self, amount: int) -> float:
        return amount / max(self.training_seconds, 1e-9)


class Training:
    """One run in one call, from a model with its adapter to the last step."""

    def __init__(self, prepared: Prepared, run: RunFolder, model: Any, call: Call) -> None:
        self.prepared = prepared
        self.settings = prepared.settings
        self.model = model
        self.state = Progress()
        self.pace = Pace()
        self.meter = PeakMeter(prepared.device)
        self._run = run
        self._call = call
        self._optimizer = make_optimizer(model, self.settings)
        pad = int(prepared.tokenizer.pad_token_id)
        self._stepper = Stepper(model, self.settings, prepared.device, pad)
        random_state.seed_all(self.settings.seed)
        self._random = random_state.capture()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Puts everything where the checkpoint found it."""
        import torch

        load_weights(self.model, checkpoint.folder / checkpoints.ADAPTER)
        device = self.prepared.device
        saved = torch.load(
            checkpoint.folder / checkpoints.OPTIMIZER, weights_only=True, map_location=device
        )
        self._optimizer.load_state_dict(saved)
        self._random = random_state.load(checkpoint.folder / checkpoints.RNG)
        random_state.restore(self._random)
        self.state = Progress(**checkpoint.state["progress"])
        self._run.trim_metrics(self.state.step)

    def run(self) -> None:
        """All steps that are left. On cancel the run is at a whole step, and on disk."""
        total = self.prepared.schedule.total_steps
        try:
            if self.state.pending is not None:
                self._finish_step(self.state.pending)
            while self.state.step < total and not self.state.stopped_early:
                self._call.check_cancel()
                self._one_step()
        except CapabilityError as error:
            if not self._call.cancelled:
                raise
            # A half-done step is forgotten: its gradients are dropped, its random numbers undrawn.
            self._optimizer.zero_grad(set_to_none=True)
            self.checkpoint("cancel")
            raise error

    def _one_step(self) -> None:
        step = self.state.step
        rate = learning_rate(step, self.prepared.schedule, self.settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        began = time.monotonic()
        batches = step_batches(self.prepared.packs, self.settings, step)
        result = self._stepper.gradients(batches, self._call.check_cancel)
        self._watch(step + 1, result)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.state.step = step + 1
        self.state.last_loss = result.loss
        self.state.supervised_tokens += result.supervised
        self._random = random_state.capture()
        seconds = time.monotonic() - began
        self.pace.steps += 1
        self.pace.tokens += result.tokens
        self.pace.supervised += result.supervised
        self.pace.training_seconds += seconds
        self._after_step(result, rate, seconds)

    def _after_step(self, result: StepResult, rate: float, seconds: float) -> None:
        row: Dict[str, Any] = {
            "step": self.state.step,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "learning_rate": rate,
            "supervised_tokens": result.supervised,
            "tokens": result.tokens,
            "supervised_tokens_per_second": round(result.supervised / max(seconds, 1e-9), 1),
            "peak_mb": round(self.meter.peak_mb(), 1),
        }
        self._finish_step(row)

    def _finish_step(self, row: Dict[str, Any]) -> None:
        self.state.pending = row
        if self._evaluates():
            row = {**row, **self._evaluate()}
        self._write_metrics(row)
        self.state.pending = None
        self._tell(row)
        if self._checkpoints():
            self.checkpoint("cadence")
        elif self._run.request_file.exists():
            self.checkpoint("request")

    def _watch(self, step: int, result: StepResult) -> None:
        """Stops a run that learns nothing any more, before its adapter is touched again."""
        if not math.isfinite(result.loss) or not math.isfinite(result.grad_norm):
            self._give_up(
                f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}; a lower "
                "learning_rate or compute_dtype bfloat16 or float32 helps"
            )
        state = self.state
        if state.first_loss is None:
            state.first_loss = result.loss
        high = result.loss > self.settings.watchdog_factor * max(state.first_loss, 1e-3)
        state.high_losses = state.high_losses + 1 if high else 0
        if state.high_losses >= self.settings.watchdog_patience:
            self._give_up(
                f"step {step}: the loss is {result.loss:.3g} after {state.first_loss:.3g} at the "
                "start; a lower learning_rate helps"
            )

    def _give_up(self, why: str) -> None:
        newest, _ = self._run.newest_checkpoint()
        rest = f"; step {newest.step} is the last checkpoint" if newest else ""
        self._call.record_account("training_diverged", {"step": self.state.step + 1, "why": why})
        raise CapabilityFatalError(f"training diverged at {why}{rest}")

    def _evaluates(self) -> bool:
        if not self.prepared.eval_packs:
            return False
        every = self.settings.eval_every or self.prepared.schedule.steps_per_epoch
        return self.state.step % every == 0 or self.state.step == self.prepared.schedule.total_steps

    def _evaluate(self) -> Mapping[str, float]:
        state = self.state
        loss, accuracy = self._stepper.evaluate(self.prepared.eval_packs, self._call.check_cancel)
        state.eval_loss, state.eval_accuracy = loss, accuracy
        best = state.best_eval_loss
        if best is None or loss < best - self.settings.early_stop_min_delta:
            state.best_eval_loss, state.evals_without_gain = loss, 0
        else:
            state.evals_without_gain += 1
        patience = self.settings.early_stop_patience
        state.stopped_early = patience is not None and state.evals_without_gain >= patience
        found = {"eval_loss": loss, "eval_accuracy": accuracy}
        self._call.record_account("training_evaluated", {"step": state.step, **found})
        return found

    def _checkpoints(self) -> bool:
        every = self.settings.checkpoint_every
        return every is not None and self.state.step % every == 0

    def _write_metrics(self, row: Mapping[str, Any]) -> None:
        with self._run.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()

    def _tell(self, row: Mapping[str, Any]) -> None:
        done, total = self.state.step, self.prepared.schedule.total_steps
        peak = float(row["peak_mb"])
        eta = (total - done) * self.pace.training_seconds / max(1, self.pace.steps)
        rate = self.pace.rate(self.pace.supervised)
        shown = [
            f"step {done}/{total}",
            f"loss {row['loss']:.4f}",
            f"grad {row['grad_norm']:.3f}",
            f"lr {row['learning_rate']:.2e}",
            f"{rate:.0f} learned tokens/s",
            f"peak {peak:.0f} MB",
            f"{eta:.0f} s left",
        ]
        if "eval_loss" in row:
            shown.insert(2, f"eval {row['eval_loss']:.4f}")
        self._call.report_progress(done / total, ", ".join(shown))
        on_gpu = self.prepared.device == "cuda"
        self._call.report_memory(*((peak, None) if on_gpu else (None, peak)))

    def checkpoint(self, reason: str) -> None:
        """Puts the state of the last whole step on disk, and reads it back."""
        import torch
        from safetensors.torch import save_file

        state = {
            "step": self.state.step,
            "progress": asdict(self.state),
            "order": self.prepared.order.to_json(),
            "identity": identity_hash(self.prepared.identity),
            # The cursor is the step: order and learning rate are functions of it.
            "epoch": self.state.step // self.prepared.schedule.steps_per_epoch,
        }
        tensors = adapter_tensors(self.model)
        writers: Mapping[str, checkpoints.Writer] = {
            checkpoints.ADAPTER: lambda file: save_file(tensors, file),
            checkpoints.OPTIMIZER: lambda file: torch.save(self._optimizer.state_dict(), file),
            checkpoints.RNG: lambda file: random_state.save(self._random, file),
            checkpoints.STATE: lambda file: checkpoints.write_json(file, state),
        }
        began = time.monotonic()
        try:
            # Its metrics first: a checkpoint must never know of steps that they do not.
            if self._run.metrics_file.exists():
                checkpoints.sync_file(self._run.metrics_file)
            self._run.write_checkpoint(self.state.step, writers, self.settings.keep_checkpoints)
        except (OSError, RuntimeError) as error:
            raise _disk_error(error, self._run, tensors) from error
        self._run.request_file.unlink(missing_ok=True)
        seconds = round(time.monotonic() - began, 3)
        log.info("checkpoint at step %d (%s) in %.3f s", self.state.step, reason, seconds)
        account = {"step": self.state.step, "reason": reason, "seconds": seconds}
        self._call.record_account("checkpoint_saved", account)

    def losses(self) -> List[float]:
        """Of every step of the whole run."""
        lines = self._run.metrics_file.read_text(encoding="utf-8").splitlines()
        return [float(json.loads(line)["loss"]) for line in lines]


def _disk_error(error: Exception, run: RunFolder, tensors: Mapping[str, Any]) -> Exception:
    """torch and safetensors report a full disk as errors of their own kinds."""
    import shutil

    free = shutil.disk_usage(run.folder).free
    needed = sum(tensor.numel() for tensor in tensors.values()) * 12
    if free > needed:
        return error
    return CapabilityResourceError(
        f"no room for a checkpoint in {run.folder}: {needed / 1e6:.1f} MB needed, "
        f"{free / 1e6:.1f} MB free; the one before it is untouched",
        resource_shortfall=ResourceShortfall("disk_mb", needed / 1e6, free / 1e6),
    )
