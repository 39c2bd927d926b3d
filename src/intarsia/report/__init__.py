"""Reports: findings drawn as terminal text, JSON, or one self-contained HTML page."""

from intarsia.report.finding import Block, Cell, Column, Figure, Finding, Series, Table, TokenMap

__all__ = ["Block", "Cell", "Column", "Figure", "Finding", "Series", "Table", "TokenMap"]
