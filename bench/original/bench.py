"""Measures the published Python package `cjm-substrate` and prints one JSON object.

Run inside a virtual environment (Python >= 3.12) that holds the package:
    python bench.py [--jobs 1000]
Two settings favour the original: its one-second progress poller is replaced by a sleep (with the
stock poller one job in about forty never finished when this was measured on Python 3.11), and its
history limit is raised (waiting for a job that left the history of 100 never returns).
"""
import argparse
import asyncio
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

logging.disable(logging.CRITICAL)
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["PYTHONPATH"] = str(HERE)

from cjm_substrate.core import config as substrate_config  # noqa: E402
from cjm_substrate.core.journal_store import JournalEvent  # noqa: E402
from cjm_substrate.core.manager import CapabilityManager  # noqa: E402
from cjm_substrate.core.ports import Composition, CompositionNode, OutputRef  # noqa: E402
from cjm_substrate.core.queue import JobQueue  # noqa: E402


async def _no_poll(self, job, capability):
    await asyncio.sleep(3600)


JobQueue._poll_progress = _no_poll


def p50(samples):
    return round(statistics.median(samples) * 1e3, 3)


async def main(jobs):
    import psutil

    data = Path(tempfile.mkdtemp())
    substrate_config.set_config(substrate_config.CJMConfig(data_dir=data))
    (data / "manifests").mkdir(parents=True)
    (data / "manifests" / "echo.json").write_text(json.dumps({
        "format_version": "2.0",
        "install": {"python_path": sys.executable},
        "code": {"name": "echo", "version": "1.0.0", "description": "echo", "module": "echo_capability",
                 "class": "Echo", "config_schema": {"type": "object", "properties": {}}},
        "drift_tracking": {}, "overrides": {},
    }))
    out = {"python": sys.version.split()[0]}
    manager = CapabilityManager(search_paths=[data / "manifests"])
    meta = manager.discover_manifests()[0]
    spawn = []
    for i in range(4):
        start = time.perf_counter()
        assert manager.load_capability(meta, instance_id=f"e{i}" if i else None, max_concurrent_requests=16)
        spawn.append(time.perf_counter() - start)
    out["spawn_to_ready_ms_p50"] = p50(spawn)
    out["worker_rss_mb"] = round(psutil.Process().children()[0].memory_info().rss / 1e6, 1)
    for _ in range(20):
        await manager.execute_capability_async("echo", value=1)
    samples = []
    for _ in range(300):
        start = time.perf_counter()
        await manager.execute_capability_async("echo", value=1)
        samples.append(time.perf_counter() - start)
    out["call_ms_p50"] = p50(samples)
    big = "x" * 1_000_000
    samples = []
    for _ in range(20):
        start = time.perf_counter()
        await manager.execute_capability_async("echo", value=big)
        samples.append(time.perf_counter() - start)
    out["call_1mb_ms_p50"] = p50(samples)
    queue = JobQueue(manager, max_concurrent_lanes=16, max_history=1_000_000)
    await queue.start()
    start = time.perf_counter()
    ids = [await queue.submit("echo", value=i) for i in range(jobs)]
    await asyncio.gather(*[queue.wait_for_job(i) for i in ids])
    out["queue_jobs_per_s"] = round(jobs / (time.perf_counter() - start), 1)
    n = 200
    chain = Composition(nodes=[CompositionNode(id="n0", capability_instance_id="echo", kwargs={"value": 0})] + [
        CompositionNode(id=f"n{i}", capability_instance_id="echo", kwargs={"value": OutputRef(f"n{i-1}", "value")})
        for i in range(1, n)])
    start = time.perf_counter()
    await queue.wait_for_composition(await queue.submit_composition(chain))
    out["chain_nodes_per_s"] = round(n / (time.perf_counter() - start), 1)
    start = time.perf_counter()
    for i in range(2000):
        manager.journal_store.append(JournalEvent(event_type="x", payload={"i": i}))
    out["journal_appends_per_s"] = round(2000 / (time.perf_counter() - start))
    await queue.stop()
    manager.unload_all()
    shutil.rmtree(data, ignore_errors=True)
    print(json.dumps(out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1000)
    asyncio.run(main(parser.parse_args().jobs))
