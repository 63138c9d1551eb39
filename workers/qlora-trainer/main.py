"""Starts the trainer: ``python main.py`` under a host."""

from cjm_worker import serve
from qlora_trainer.capability import QloraTrainer

if __name__ == "__main__":
    serve(QloraTrainer)
