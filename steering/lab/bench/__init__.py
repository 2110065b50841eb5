"""What every experiment works with: models, readings, plans, settings, kept steps."""
