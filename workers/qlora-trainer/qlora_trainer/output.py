"""What a run leaves: an adapter that peft loads, and a card that says where it comes from."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping

from cjm_worker import CapabilityInputError
from cjm_worker.files import hash_file
from cjm_worker.schema import to_plain

from .checkpoints import sync_folder
from .models import ADAPTER_CONFIG, CARD_NAME, WEIGHTS_NAME, adapter_tensors
from .prepare import Prepared
from .training import Training


def versions() -> Dict[str, str]:
    """Of everything that decides what is computed."""
    import platform
    from importlib.metadata import version

    names = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "tokenizers", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def write_adapter(training: Training, folder: Path) -> Path:
    """Writes ``<folder>/adapter``, which must not exist. The folder appears when it is whole."""
    final = folder / "adapter"
    if final.exists():
        raise CapabilityInputError(f"{final} exists already", fields_invalid=["output"])
    draft = folder / f".adapter-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    training.model.save_pretrained(draft, save_embedding_layers=False)
    _check_weights(training, draft / WEIGHTS_NAME)
    _complete_config(training.prepared, draft / ADAPTER_CONFIG)
    card = make_card(training, hash_file(draft / WEIGHTS_NAME))
    text = json.dumps(card, indent=1, sort_keys=True)
    (draft / CARD_NAME).write_text(text, encoding="utf-8")
    (draft / "README.md").write_text(_readme(card), encoding="utf-8")
    for file in draft.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    draft.rename(final)
    sync_folder(folder)
    return final


def _check_weights(training: Training, file: Path) -> None:
    """Reads back what was written."""
    import torch
    from safetensors.torch import load_file

    saved, have = load_file(file), adapter_tensors(training.model)
    if set(saved) != set(have) or not all(torch.equal(saved[name], have[name]) for name in have):
        raise OSError(f"{file} is not what was trained")


def _complete_config(prepared: Prepared, file: Path) -> None:
    """peft names the base by the path it was loaded from; sets are written in no fixed order."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = str(prepared.folder.resolve())
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def make_card(training: Training, weights_sha256: str) -> Dict[str, Any]:
    """
    Everything needed to judge or repeat a run; no path of this machine but the base's name, and no
    time it took: equal runs make equal folders, which a registry knows by their content.
    """
    prepared, state = training.prepared, training.state
    losses: List[float] = training.losses()
    return {
        "weights_sha256": weights_sha256,
        **to_plain(prepared.identity),
        "base_model": prepared.folder.name,
        "settings": to_plain(prepared.settings),
        "rows": len(prepared.fitted.samples),
        "trainable_parameters": prepared.trainable_parameters,
        "steps": state.step,
        "supervised_tokens": state.supervised_tokens,
        "first_loss": losses[0] if losses else None,
        "final_loss": state.last_loss,
        "eval_loss": state.eval_loss,
        "eval_accuracy": state.eval_accuracy,
        "stopped_early": state.stopped_early,
        "device": prepared.device,
        "versions": versions(),
    }


def _readme(card: Mapping[str, Any]) -> str:
    def line(name: str) -> str:
        return f"| {name} | {card[name]} |\n"

    names = ("base_model", "model_sha256", "data_sha256", "config_sha256", "weights_sha256")
    numbers = ("rows", "steps", "supervised_tokens", "first_loss", "final_loss", "eval_loss")
    rows = "".join(line(name) for name in (*names, *numbers))
    settings = json.dumps(card["settings"], indent=2, sort_keys=True)
    used = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    return (
        "---\nlibrary_name: peft\n---\n\n# LoRA adapter\n\n"
        f"|  |  |\n| --- | --- |\n{rows}\nMade with {used}.\n\n"
        f"```json\n{settings}\n```\n"
    )
