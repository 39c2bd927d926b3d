"""Benchmarks side by side with the peers: `python -m bench.NAME [--quick] [--json FILE]`."""
