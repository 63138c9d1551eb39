"""Starts the worker: ``python main.py`` under a host."""

from cjm_worker import serve
from inference_transformers.capability import InferenceTransformers

if __name__ == "__main__":
    serve(InferenceTransformers)
