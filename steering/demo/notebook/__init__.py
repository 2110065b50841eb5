"""The demo in a notebook."""
