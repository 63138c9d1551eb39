"""Loss falls, answers improve, and the adapter is peft's."""

import json
from pathlib import Path
from typing import Any

from conftest import SETTINGS


def test_a_run_reports_what_it_did(worker: Any, model: str, data: str) -> None:
    trainer = worker()
    done = trainer.run("train", model=model, dataset=data, settings=SETTINGS)
    assert done["steps"] == done["steps_executed"] == 6
    assert done["resumed_from_step"] is None
    rows = [json.loads(line) for line in Path(done["metrics"]["data"]["path"]).open()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] == done["final_loss"] < rows[0]["loss"]
    messages = [frame["message"] for frame in trainer.sink.of("progress")]
    assert messages[-1].startswith("step 6/6, loss ")
    accounts = [frame["event_type"] for frame in trainer.sink.of("account")]
    assert accounts == ["training_started", *["checkpoint_saved"] * 3, "training_finished"]
