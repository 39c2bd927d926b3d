"""Adaptation: label tuning and instruction tuning with low-rank adapters."""
