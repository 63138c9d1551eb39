"""What the tests of the engine share: workers on the tiny trained model."""

import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import pytest

ROOT = Path(__file__).parents[3]
for place in ("python/src", "workers/inference-transformers", "test/ml/support"):
    sys.path.insert(0, str(ROOT / place))

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
_DATA = tempfile.TemporaryDirectory(prefix="inference-transformers-")
os.environ["CAPABILITY_DATA_DIR"] = _DATA.name

from tiny_llm import ask, question, tiny_llm  # noqa: E402


@pytest.fixture(scope="session")
def tiny() -> Dict[str, Any]:
    return tiny_llm()


@pytest.fixture
def worker(tiny: Dict[str, Any]) -> Any:
    """Makes workers; each one's model is given back after the test."""
    from cjm_worker.testing import LocalWorker
    from inference_transformers.capability import InferenceTransformers

    made: List[LocalWorker] = []

    def make(config: Optional[Mapping[str, Any]] = None) -> LocalWorker:
        chosen = {"model": tiny["base"], "device": "cpu", "threads": 1, **(config or {})}
        made.append(LocalWorker(InferenceTransformers, chosen))
        return made[-1]

    yield make
    for local in made:
        local.post("/cleanup")


@pytest.fixture(scope="module")
def shared(tiny: Dict[str, Any]) -> Any:
    """One worker for all tests of a file that leave it as it was."""
    from cjm_worker.testing import LocalWorker
    from inference_transformers.capability import InferenceTransformers

    config = {"model": tiny["base"], "device": "cpu", "threads": 1}
    local = LocalWorker(InferenceTransformers, config)
    yield local
    local.post("/cleanup")


def engine_of(local: Any) -> Any:
    return local.worker.capability._service.engine


def colour(local: Any, thing: str = "sky", **more: Any) -> str:
    """The greedy answer to a question the model has learned."""
    given = {"temperature": 0, "max_tokens": 40, **more}
    text: str = local.run("chat", messages=ask(question(thing)), **given)["text"]
    return text


def at_once(jobs: Sequence[Callable[[], Any]]) -> List[Any]:
    """Results of functions that start together, in their order; the first failure is raised."""
    barrier = threading.Barrier(len(jobs))
    results: List[Any] = [None] * len(jobs)
    failures: List[BaseException] = []

    def work(place: int) -> None:
        try:
            barrier.wait()
            results[place] = jobs[place]()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
