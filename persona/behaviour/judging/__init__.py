"""Judges of sampled answers: offline, a local model, an endpoint."""
