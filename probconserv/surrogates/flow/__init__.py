"""Flow matching: a generative surrogate whose draws meet a law."""
