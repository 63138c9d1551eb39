"""Runs the trainer in a process of its own that dies by SIGKILL at a chosen moment."""

import os
import signal
import sys
from typing import Any, Callable, Dict, Tuple

#: A moment: the n-th time (from 1) that the named thing is about to happen.
Moment = Tuple[str, int]


def _die_at(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    seen = 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return counting


def _arm(moment: Moment) -> None:
    import pathlib

    import safetensors.torch
    import torch

    places: Dict[str, Tuple[Any, str]] = {
        # In the middle of a step, and between its backward passes.
        "backward": (torch.Tensor, "backward"),
        "optimizer": (torch.optim.AdamW, "step"),
        # In the middle of a checkpoint: nothing written, some files written, not yet renamed.
        "weights": (safetensors.torch, "save_file"),
        "fsync": (os, "fsync"),
        "rename": (pathlib.Path, "rename"),
    }
    owner, name = places[moment[0]]
    setattr(owner, name, _die_at(moment[1], getattr(owner, name)))


def train_until(moment: Moment, run: Callable[[], Any]) -> bool:
    """Whether the process was killed; False when it finished before the moment came."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _arm(moment)
            run()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
