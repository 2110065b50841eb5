"""What an edit does, beside its controls: dose, nulls, transfer, answers, the scorecard."""
