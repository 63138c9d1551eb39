"""LoRA adapters on one base: checked before they touch it, applied row by row.

peft puts the weights into the model and keeps them switched off. What an adapter adds is added by
a hook behind each adapted layer, for the rows that asked for it and with their scale: there is no
active adapter that two calls could fight over, and a row without adapters gets the bare base.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from cjm_worker import DirRef, FileRef
from cjm_worker.errors import is_out_of_memory

from .fields import AdapterInfo, Source
from .model_files import read_json, safetensors_header
from .problems import TaskInputError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_CARD_NAME = "training.json"
_PREFIX = "base_model.model."

#: What a row applies: content hash and scale of each adapter.
Applied = Tuple[Tuple[str, float], ...]


@dataclass(frozen=True)
class Adapter:
    """A PEFT folder whose content is what its hash says."""

    folder: Path
    sha256: str
    config: Mapping[str, Any]
    #: Of its files when they were hashed: sizes and times of change.
    stamp: Tuple[str, ...]

    def check_unchanged(self) -> None:
        """Raises ``adapter_hash`` when a file changed since it was hashed."""
        if _stamp(self.folder) != self.stamp:
            message = f"{self.folder} changed after it was hashed as {self.sha256}"
            raise TaskInputError("adapter_hash", message, ["adapters"])

    def info(self, name: str) -> AdapterInfo:
        rank, alpha = self.config.get("r"), self.config.get("lora_alpha")
        base = self.config.get("base_model_name_or_path")
        return AdapterInfo(
            id=name,
            path=str(self.folder),
            sha256=self.sha256,
            format="peft",
            bytes=(self.folder / WEIGHTS_NAME).stat().st_size,
            base_model=base if isinstance(base, str) else None,
            rank=rank if isinstance(rank, int) else None,
            alpha=float(alpha) if isinstance(alpha, (int, float)) else None,
        )


class AdapterFinder:
    """Finds adapters and hashes them; what has not changed is not read again."""

    def __init__(self) -> None:
        self._known: Dict[Tuple[str, ...], Adapter] = {}

    def find(self, source: Source, expected: Optional[str], field: str) -> Adapter:
        """The adapter at a path. Raises ``adapter_missing``, ``_invalid`` or ``_hash``."""
        folder = _folder_of(source, field)
        stamp = _stamp(folder)
        adapter = self._known.get(stamp)
        if adapter is None:
            config = read_json(folder / CONFIG_NAME)
            adapter = Adapter(folder, DirRef.of(folder).sha256, config, stamp)
            _check_kind(adapter, field)
            self._known[stamp] = adapter
        named = source.sha256 if isinstance(source, DirRef) else None
        for wanted in (expected, named):
            if wanted is not None and wanted != adapter.sha256:
                message = f"{folder} is {adapter.sha256}, not {wanted}"
                raise TaskInputError("adapter_hash", message, [field])
        return adapter


def _folder_of(source: Source, field: str) -> Path:
    folder = Path(_path_of(source))
    if isinstance(source, FileRef) or folder.is_file():
        message = f"{folder} is a file; this engine takes PEFT folders"
        raise TaskInputError("adapter_invalid", message, [field])
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / name).is_file()]
    if missing:
        message = f"{folder} has no {' and no '.join(missing)}"
        raise TaskInputError("adapter_missing", message, [field])
    return folder


def _stamp(folder: Path) -> Tuple[str, ...]:
    """What changes when a file of the folder does."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    states = [(file, file.stat()) for file in files]
    return (
        str(folder.resolve()),
        *(f"{file.name}|{s.st_size}|{s.st_mtime_ns}|{s.st_ino}" for file, s in states),
    )


def _path_of(source: Source) -> str:
    return source.path if isinstance(source, (FileRef, DirRef)) else source


def _check_kind(adapter: Adapter, field: str) -> None:
    """Refuses by name what this engine would have to leave out."""
    config = adapter.config
    kind = str(config.get("peft_type"))
    wrong = [] if kind == "LORA" else [f"peft_type {kind}"]
    for name, neutral in (
        ("use_dora", False),
        ("modules_to_save", None),
        ("trainable_token_indices", None),
        ("target_parameters", None),
        ("alora_invocation_tokens", None),
        ("bias", "none"),
        ("lora_bias", False),
    ):
        if config.get(name) not in (neutral, None, False, [], {}):
            wrong.append(f"{name} {config[name]}")
    if wrong:
        message = f"{adapter.folder} has {', '.join(wrong)}, which this engine cannot apply"
        raise TaskInputError("adapter_invalid", message, [field])


def check_fits(adapter: Adapter, model: Any, model_sha256: str) -> None:
    """Compares every tensor with the layer it is for; the base is not touched.

    Raises ``adapter_invalid`` for a file that is torn, ``adapter_mismatch`` for another base.
    """
    try:
        tensors = safetensors_header(adapter.folder / WEIGHTS_NAME)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskInputError("adapter_invalid", str(error), ["adapters"]) from error
    trained_on = read_json(adapter.folder / _CARD_NAME).get("model_sha256")
    if isinstance(trained_on, str) and trained_on != model_sha256:
        message = f"{adapter.folder} was trained on {trained_on}; the base is {model_sha256}"
        raise TaskInputError("adapter_mismatch", message, ["adapters"])
    modules = dict(model.named_modules())
    wrong = [problem for key in tensors if (problem := _misfit(key, tensors[key], modules))]
    if wrong or not tensors:
        first = wrong[0] if wrong else "it has no tensors"
        message = f"{adapter.folder} does not fit the model in {len(wrong)} tensors: {first}"
        raise TaskInputError("adapter_mismatch", message, ["adapters"])


def _misfit(key: str, entry: Mapping[str, Any], modules: Mapping[str, Any]) -> str:
    path, _, matrix = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
    if matrix not in ("lora_A", "lora_B"):
        return f"{key} is no LoRA matrix of a linear layer"
    layer = modules.get(path)
    width = getattr(layer, "in_features" if matrix == "lora_A" else "out_features", None)
    if width is None:
        return f"the model has no linear layer {path}"
    if entry["shape"][1 if matrix == "lora_A" else 0] != width:
        side = "inputs" if matrix == "lora_A" else "outputs"
        return f"{key} is {entry['shape']}, the layer has {width} {side}"
    return ""


class AdapterBank:
    """The adapters inside one loaded model. Use it from one thread."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._peft: Any = None
        self._names: Dict[str, str] = {}
        self._hooks: Dict[str, Any] = {}
        #: For the pass that runs: adapter name, rows (None: all) and scale per row.
        self._plan: List[Tuple[str, Any, Any]] = []
        self._rows = 0

    @property
    def held(self) -> List[str]:
        """Content hashes of the adapters in memory."""
        return list(self._names)

    def attach(self, adapter: Adapter) -> None:
        """Puts the weights into the model and checks that they are there as the file has them."""
        from peft import PeftModel

        if adapter.sha256 in self._names:
            return
        name = f"a{adapter.sha256.removeprefix('sha256:')}"
        folder = str(adapter.folder)
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(
                    self._model, folder, adapter_name=name, torch_device="cpu"
                )
            else:
                self._peft.load_adapter(folder, adapter_name=name, torch_device="cpu")
            self._names[adapter.sha256] = name
            self._switch_off()
            self._verify(adapter, name)
        except Exception as error:
            self._names[adapter.sha256] = name
            self.detach(adapter.sha256)
            # torch has no class of its own for tensors that do not fit.
            if isinstance(error, (ValueError, KeyError, TypeError, RuntimeError)) and not (
                is_out_of_memory(error)
            ):
                message = f"{folder} cannot be put into the model: {error}"
                raise TaskInputError("adapter_mismatch", message, ["adapters"]) from error
            raise

    def _switch_off(self) -> None:
        """Turns peft's own switch off, and hooks the layers that have no hook yet."""
        from peft.tuners.lora import LoraLayer

        self._peft.base_model.disable_adapter_layers()
        self._peft.eval()
        for path, layer in self._peft.named_modules():
            if isinstance(layer, LoraLayer) and path not in self._hooks:
                base = layer.get_base_layer()
                self._hooks[path] = base.register_forward_hook(self._hook(layer))

    def _verify(self, adapter: Adapter, name: str) -> None:
        import torch
        from peft import get_peft_model_state_dict
        from safetensors.torch import load_file

        saved = load_file(adapter.folder / WEIGHTS_NAME)
        have = get_peft_model_state_dict(self._peft, adapter_name=name)
        lost = [
            key
            for key, value in saved.items()
            if key not in have or not torch.equal(have[key].cpu(), value.to(have[key].dtype))
        ]
        if lost or len(saved) != len(have):
            raise ValueError(f"{len(lost)} tensors are not as the file has them, as {lost[:1]}")

    def detach(self, digest: str) -> None:
        """Takes an adapter out; with the last one the model is the bare base again."""
        name = self._names.pop(digest, None)
        if name is None or self._peft is None:
            return
        if not self._names:
            for hook in self._hooks.values():
                hook.remove()
            self._hooks.clear()
            self._peft.unload()
            self._peft = None
            # peft would take the bare base for one that still has adapters.
            self._model.__dict__.pop("peft_config", None)
        elif name in self._peft.peft_config:
            self._peft.delete_adapter(name)

    def route(self, rows: Sequence[Applied], device: Any) -> None:
        """Says what each row of the next passes applies; an empty list: nothing."""
        import torch

        users: Dict[str, List[Tuple[int, float]]] = {}
        for place, applied in enumerate(rows):
            for digest, scale in applied:
                users.setdefault(self._names[digest], []).append((place, scale))
        self._rows = len(rows)
        self._plan = []
        for name, uses in users.items():
            places = [place for place, _ in uses]
            scales = torch.tensor([scale for _, scale in uses], device=device)
            everyone = places == list(range(len(rows)))
            chosen = None if everyone else torch.tensor(places, device=device)
            self._plan.append((name, chosen, scales))

    def _hook(self, layer: Any) -> Any:
        def add(module: Any, inputs: Any, output: Any) -> Any:
            for name, rows, scales in self._plan:
                if name in layer.lora_A:
                    output = self._added(layer, name, (inputs[0], output), (rows, scales))
            return output

        return add

    def _added(self, layer: Any, name: str, passed: Any, use: Any) -> Any:
        (given, output), (rows, scales) = passed, use
        if given.shape[0] != self._rows:
            rows, scales = self._spread(given, rows, scales)
        first, second = layer.lora_A[name], layer.lora_B[name]
        part = given if rows is None else given.index_select(0, rows)
        shape = [-1] + [1] * (output.dim() - 1)
        scale = (scales * layer.scaling[name]).view(shape)
        change = (second(first(part.to(first.weight.dtype))) * scale).to(output.dtype)
        return output + change if rows is None else output.index_add(0, rows, change)

    def _spread(self, given: Any, rows: Any, scales: Any) -> Any:
        """Rows of a layer that sees the tokens of all sequences one after the other."""
        import torch

        tokens, rest = divmod(given.shape[0], self._rows)
        if rest or given.dim() != 2:
            raise RuntimeError("a layer that regroups its inputs cannot have adapters by row")
        if rows is not None:
            steps = torch.arange(tokens, device=rows.device)
            rows = (rows.unsqueeze(1) * tokens + steps).flatten()
        return rows, scales.repeat_interleave(tokens)
