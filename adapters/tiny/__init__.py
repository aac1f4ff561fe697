"""The embedded base model: its tokenizer, its corpus and its pre-training, Phi-3 in shape, 12M weights at most; and the
training of a small model that reads."""
