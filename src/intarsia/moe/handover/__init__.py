"""Handing a placement on: a checkpoint whose experts lie in the placement's order, and serving engines' own forms."""
