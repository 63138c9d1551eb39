"""Writes a base model and its data for the host's test: ``python make_base.py <folder>``."""

import sys
from pathlib import Path

from tiny import make_model, school, task_rows, write_rows

folder = Path(sys.argv[1])
make_model(folder / "base")
school(folder / "base")
rows = task_rows(700, 11)
asked = {row["messages"][0]["content"] for row in rows[:40]}
write_rows(folder / "questions.jsonl", rows[:40])
shown = [row for row in rows if row["messages"][0]["content"] not in asked]
write_rows(folder / "train.jsonl", shown)
