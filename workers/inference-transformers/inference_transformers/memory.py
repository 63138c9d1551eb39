"""Memory that is held, measured."""

import gc
import os
import sys
from pathlib import Path

MB = 1_000_000


def held_mb(device: str) -> float:
    """Memory held now: reserved by the allocator on CUDA, resident elsewhere."""
    if device == "cuda":
        import torch

        return float(torch.cuda.memory_reserved()) / MB
    if not sys.platform.startswith("linux"):
        return 0.0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def give_back(device: str) -> None:
    """Returns what is free inside the process to the device or the system."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
