"""Proof, by measurement on a model, that steering writes where it is meant to."""
