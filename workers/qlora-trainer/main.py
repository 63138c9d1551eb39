"""Starts the trainer: ``python main.py`` under a host."""

from qlora_trainer.capability import QloraTrainer

from cjm_worker import serve

if __name__ == "__main__":
    serve(QloraTrainer)
