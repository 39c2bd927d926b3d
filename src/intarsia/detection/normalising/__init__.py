"""Normalising: what does not belong to the wording of a text is taken out before it is scored, and where it came from
is remembered.

- `normalise(text)`: the `Normalised` text, the way back to the original, and what was found on the way."""

from __future__ import annotations

from intarsia.detection.normalising.found import Found
from intarsia.detection.normalising.normalised import Normalised, normalise

__all__ = ["Found", "Normalised", "normalise"]
