"""Benchmarks of the prompting framework."""
