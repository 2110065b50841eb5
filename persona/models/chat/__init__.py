"""From a dialogue to token ids: template, tokens, the answer's span, the end of a turn."""
