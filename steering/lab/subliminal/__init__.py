"""Traits carried by data that do not show them: numbers, sums, plain texts."""
