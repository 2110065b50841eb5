"""Which direction is the persona: candidates, a first-order screen, real trials."""
