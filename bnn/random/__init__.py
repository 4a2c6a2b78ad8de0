"""Random numbers that are a pure function of a key, and stochastic rounding."""
