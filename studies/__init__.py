"""Predictions of theory, measured in under a minute each: `python -m studies NAME`; docs/theory.md has them all."""
