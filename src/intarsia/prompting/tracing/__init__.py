"""Traces: what was asked and answered, step by step."""
