"""The experiments on fine-tunes, each its plan, its measurement and its report."""
