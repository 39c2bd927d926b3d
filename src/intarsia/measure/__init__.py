"""Measure: what a model costs and how good it is."""
