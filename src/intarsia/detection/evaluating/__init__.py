"""Evaluating detectors: one protocol for all of them."""
