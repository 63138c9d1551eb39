"""The report of a run that has not started."""

from pathlib import Path

from .masks import length_histogram
from .memory import Profiles, predict_mb
from .prepare import Prepared, output_bytes
from .reports import PlanReport


def report_plan(prepared: Prepared, data_dir: Path) -> PlanReport:
    """Counts and predictions; the latter rest on what runs of this kind took on this machine."""
    samples, schedule = prepared.fitted.samples, prepared.schedule
    lengths = [len(sample.ids) for sample in samples]
    rows = [sum(len(sample.ids) for sample in pack) for pack in prepared.packs]
    width = prepared.settings.max_length if prepared.settings.packing else max(rows)
    profiles = Profiles(data_dir / "profiles.json")
    parts = predict_mb(prepared)
    peak, rate, runs = profiles.corrected(profiles.key(prepared), sum(parts.values()))
    passes = schedule.total_steps / schedule.steps_per_epoch
    identity = prepared.identity
    return PlanReport(
        config_sha256=identity.config_sha256,
        data_sha256=identity.data_sha256,
        model_sha256=identity.model_sha256,
        rows=len(samples),
        eval_rows=sum(len(pack) for pack in prepared.eval_packs),
        supervised_tokens=sum(sample.supervised for sample in samples),
        total_tokens=sum(lengths),
        length_histogram=length_histogram(lengths),
        dropped_lines=prepared.fitted.dropped_lines,
        truncated_lines=prepared.fitted.truncated_lines,
        lost_tokens=prepared.fitted.lost_tokens,
        packed_rows=len(rows),
        fill=round(sum(rows) / (len(rows) * width), 4),
        steps=schedule.total_steps,
        steps_per_epoch=schedule.steps_per_epoch,
        warmup_steps=schedule.warmup_steps,
        trainable_parameters=prepared.trainable_parameters,
        base_parameters=prepared.layers.parameters,
        device=prepared.device,
        predicted_peak_mb=round(peak, 1),
        predicted_parts_mb={name: round(value, 1) for name, value in parts.items()},
        predicted_seconds=None if rate is None else round(sum(lengths) * passes / rate, 1),
        measured_runs=runs,
        disk_mb=round(output_bytes(prepared) / 1e6, 1),
        warnings=prepared.warnings,
    )
