"""A LoRA adapter: its files, and putting it on the model it belongs to."""
