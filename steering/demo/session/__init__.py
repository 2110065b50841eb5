"""A conversation with several models at once: settings, drawing, transcript."""
