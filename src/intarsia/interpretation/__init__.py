"""Interpretation: lenses and the model diff."""
