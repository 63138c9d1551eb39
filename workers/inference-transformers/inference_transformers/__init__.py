"""Text generation with transformers and peft: many adapters on one base, batched."""
