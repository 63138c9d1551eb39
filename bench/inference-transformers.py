"""What the worker adds to transformers: speed of one text, of many, and how soon an abort frees.

``python bench/inference-transformers.py [rounds]`` with the Python of the worker's environment.
Everything is measured in turns in one run, the other way round in every second one, so that a
busy machine slows all of it; ratios count, the numbers themselves are those of this machine and of
a random model of about 30 MB. What other processes take from the wall clock they do not take from
the processor time of this one: on a machine that is not quiet, that ratio is the one to read.
"""

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

ROOT = Path(__file__).parents[1]
for place in ("python/src", "workers/inference-transformers", "test/ml/support"):
    sys.path.insert(0, str(ROOT / place))
os.environ["HF_HUB_OFFLINE"] = "1"
_FOLDER = tempfile.TemporaryDirectory(prefix="bench-inference-")
os.environ["CAPABILITY_DATA_DIR"] = _FOLDER.name

from tiny_llm import make_tokenizer  # noqa: E402

TOKENS = 96
PROMPT = "one two three four five six seven eight nine ten " * 3


def make_base(folder: Path) -> str:
    """A random model whose passes take a few milliseconds, as the smallest useful ones do."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6}
    config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=4, **shape)
    model = LlamaForCausalLM(config)
    # Nothing ends a text early: every one has the same length.
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    return str(folder)


def seconds(function: Callable[[], Any]) -> float:
    return measured(function)[0]


def measured(function: Callable[[], Any]) -> Tuple[float, float]:
    """Seconds on the wall and of the processor, all threads of this process together."""
    began, spent = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - began, time.process_time() - spent


def at_once(count: int, function: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def abort_ms(local: Any, runner: Any) -> float:
    """From the cancel of one text to its slot's being free."""
    running, freed = threading.Event(), threading.Event()
    step = runner._write

    def watched() -> None:
        step()
        (running if runner.active else freed).set()

    runner._write = watched
    given = {"prompt": PROMPT, "temperature": 0, "max_tokens": 300}
    thread = threading.Thread(
        target=lambda: local.request(
            "POST",
            "/execute",
            {"kwargs": {"action": "generate", **given}, "envelope": {"job_id": "doomed"}},
        )
    )
    thread.start()
    running.wait()
    freed.clear()
    began = time.perf_counter()
    local.post("/cancel", {"job_id": "doomed"})
    # An idle runner passes no more; a command makes it take the turn that frees the slot.
    runner.command(lambda: None).result()
    freed.wait()
    ended = time.perf_counter()
    thread.join()
    runner._write = step
    return 1000 * (ended - began)


def main() -> None:
    import torch
    from cjm_worker.testing import LocalWorker
    from inference_transformers.capability import InferenceTransformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    path = make_base(Path(_FOLDER.name) / "base")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bare = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device)
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids.to(device)
    local = LocalWorker(InferenceTransformers, {"model": path, "dtype": "float32"})

    def by_generate() -> None:
        with torch.inference_mode():
            out = bare.generate(ids, max_new_tokens=TOKENS, do_sample=False)
        assert out.shape[1] == ids.shape[1] + TOKENS

    def by_worker() -> Dict[str, Any]:
        done: Dict[str, Any] = local.run(
            "generate", prompt=PROMPT, temperature=0, max_tokens=TOKENS
        )
        assert done["usage"]["completion_tokens"] == TOKENS
        return done

    def by_stream() -> None:
        local.run("stream", prompt=PROMPT, temperature=0, max_tokens=TOKENS)

    for warm in (by_generate, by_worker, by_stream):
        warm()
    runner = local.worker.capability._service.engine.loaded.runner
    work: List[Tuple[str, int, Callable[[], Any]]] = [
        ("bare", 1, by_generate),
        ("generate", 1, by_worker),
        ("stream", 1, by_stream),
        ("32 at once", 32, lambda: at_once(32, by_worker)),
    ]
    kinds: Dict[str, List[float]] = {name: [] for name, _, _ in work}
    processor: Dict[str, List[float]] = {name: [] for name, _, _ in work}
    first_ms: List[float] = []
    aborts: List[float] = []
    for turn in range(rounds):
        for name, texts, function in work if turn % 2 == 0 else reversed(work):
            wall, spent = measured(function)
            kinds[name].append(texts * TOKENS / wall)
            processor[name].append(texts * TOKENS / spent)
        read = seconds(lambda: _read_prompt(bare, ids))
        first_ms.append(by_worker()["timings"]["first_token_ms"] - 1000 * read)
        aborts.append(abort_ms(local, runner))
    rates = {name: statistics.median(values) for name, values in kinds.items()}
    report = {
        "device": device,
        "rounds": rounds,
        "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "of_bare_generate": _of_bare(kinds),
        "of_bare_generate_by_processor_time": _of_bare(processor),
        "added_first_token_ms": round(statistics.median(first_ms), 2),
        "abort_ms": {"median": round(statistics.median(aborts), 2), "max": round(max(aborts), 2)},
    }
    print(json.dumps(report, indent=2))


def _of_bare(kinds: Dict[str, List[float]]) -> Dict[str, float]:
    """Medians of the pairs."""
    return {
        name: round(statistics.median(a / b for a, b in zip(values, kinds["bare"])), 3)
        for name, values in kinds.items()
    }


def _read_prompt(model: Any, ids: Any) -> None:
    import torch

    with torch.inference_mode():
        model(input_ids=ids, use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()


if __name__ == "__main__":
    main()
