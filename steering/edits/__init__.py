"""Edits of the residual stream: what is written, where, at which tokens, and `steer`."""
