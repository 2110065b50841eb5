"""Probes: whether the persona can be read from activations, and whether the reading is real."""
