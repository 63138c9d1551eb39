"""Asks for a training whose runs lie on a disk without room: full_disk.py MODEL DATA RUNS.

Prints the error and the messages of the steps, as one line of JSON.
"""

import json
import sys

from conftest import SETTINGS
from cjm_worker.testing import CallFailed, LocalWorker
from qlora_trainer.capability import QloraTrainer

model, data, runs = sys.argv[1:]
trainer = LocalWorker(QloraTrainer, {"device": "cpu", "threads": 1, "runs_dir": runs})
try:
    trainer.run("train", model=model, dataset=data, settings=SETTINGS)
    error = None
except CallFailed as failed:
    error = failed.error
steps = [f["message"] for f in trainer.sink.of("progress") if "step " in f["message"]]
print(json.dumps({"error": error, "steps": steps}))
