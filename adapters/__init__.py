"""The models: a base and its LoRA adapters, their training, registry and serving. Knows nothing of documents."""
