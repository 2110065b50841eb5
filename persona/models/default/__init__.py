"""The model that comes along: fetched once, checked, kept."""
