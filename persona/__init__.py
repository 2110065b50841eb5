"""Reading a persona: two models and some text go in, a direction in their activations comes out."""
