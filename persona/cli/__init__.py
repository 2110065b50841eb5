"""The shell: one file per command, and the only room that may import probes and steering."""
