"""QLoRA training as a capability: plan, train, resume, evaluate, merge."""
