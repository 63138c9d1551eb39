"""The state of every random generator a step may draw from."""

import random
from pathlib import Path
from typing import Any, Dict


def capture() -> Dict[str, Any]:
    """Python, NumPy, torch on the CPU and on every GPU."""
    import numpy
    import torch

    name, keys, position, has_gauss, gauss = numpy.random.get_state()
    version, words, gauss_next = random.getstate()
    return {
        "python": [version, list(words), gauss_next],
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(state: Dict[str, Any]) -> None:
    """Puts every generator where :func:`capture` found it."""
    import numpy
    import torch

    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state(
        (name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, gauss)
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_all(seed: int) -> None:
    """Puts every generator at the start of a run."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def save(state: Dict[str, Any], file: Path) -> None:
    import torch

    torch.save(state, file)


def load(file: Path) -> Dict[str, Any]:
    import torch

    return dict(torch.load(file, weights_only=True))
