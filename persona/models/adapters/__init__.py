"""An adapter of PEFT: its files, and putting it on the model it belongs to."""
