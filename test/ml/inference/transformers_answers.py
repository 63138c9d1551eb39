"""Answers of the worker ``inference-transformers`` to a list of calls, as JSON.

``python transformers_answers.py '{"config": {...}, "calls": [{"action": ..., ...}, ...]}'``
"""

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
for place in ("python/src", "workers/inference-transformers"):
    sys.path.insert(0, str(ROOT / place))
os.environ["HF_HUB_OFFLINE"] = "1"

with tempfile.TemporaryDirectory() as folder:
    os.environ["CAPABILITY_DATA_DIR"] = folder
    from cjm_worker.testing import LocalWorker
    from inference_transformers.capability import InferenceTransformers

    asked = json.loads(sys.argv[1])
    local = LocalWorker(InferenceTransformers, asked["config"])
    answers = [local.run(call.pop("action"), **call) for call in asked["calls"]]
    local.post("/cleanup")
print(json.dumps(answers))
