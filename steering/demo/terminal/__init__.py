"""The three models in a terminal: how answers look, and what a line that begins with / does."""
