"""Processor time and memory of this worker and everything it started, without psutil."""

import os
import subprocess
import sys
import time
from typing import Dict, List, NamedTuple, Optional, Tuple


class _Process(NamedTuple):
    pid: int
    parent: int
    cpu_seconds: float
    rss_mb: float


def _linux_processes() -> List[_Process]:
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE") / 1_000_000
    found: List[_Process] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                # The name may hold spaces and brackets; what follows the last bracket is fixed.
                values = file.read().rpartition(b")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        seconds = (int(values[11]) + int(values[12])) / ticks
        found.append(_Process(int(entry), int(values[1]), seconds, int(values[21]) * page))
    return found


def _cpu_seconds(text: str) -> float:
    seconds = 0.0
    for part in text.replace("-", ":").split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _other_processes() -> List[_Process]:
    command = ["ps", "-axo", "pid=,ppid=,time=,rss="]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    return [
        _Process(int(row[0]), int(row[1]), _cpu_seconds(row[2]), int(row[3]) * 1024 / 1_000_000)
        for row in rows
    ]


def processes() -> List[_Process]:
    """Every process this one can see."""
    return _linux_processes() if sys.platform.startswith("linux") else _other_processes()


def descendants(pid: int, known: Optional[List[_Process]] = None) -> List[_Process]:
    """A process and all that descend from it, itself first."""
    everything = processes() if known is None else known
    children: Dict[int, List[_Process]] = {}
    for process in everything:
        children.setdefault(process.parent, []).append(process)
    found = [process for process in everything if process.pid == pid]
    for process in found:
        found.extend(children.get(process.pid, []))
    return found


class ProcessStats:
    """Answers ``/stats``; the processor load is measured between two questions."""

    def __init__(self) -> None:
        self._previous: Tuple[float, float] = (time.monotonic(), 0.0)

    def read(self) -> Dict[str, object]:
        """``{pid, cpu_percent, memory_rss_mb, subtree_pids}``; sums over the tree, MB of 10**6."""
        tree = descendants(os.getpid())
        now, cpu = time.monotonic(), sum(process.cpu_seconds for process in tree)
        then, before = self._previous
        self._previous = (now, cpu)
        elapsed = max(now - then, 0.001)
        return {
            "pid": os.getpid(),
            "cpu_percent": round(max(0.0, cpu - before) / elapsed * 100, 1),
            "memory_rss_mb": round(sum(process.rss_mb for process in tree), 1),
            "subtree_pids": [process.pid for process in tree],
        }
