"""Compression: what each family costs in quality, and how fast what it makes runs, beside its peers."""
