"""Weights on grids of whole numbers: the grids, the modules that hold codes, and how codes are chosen."""
