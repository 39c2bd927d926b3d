"""Compression: quantization and export to faster engines."""
