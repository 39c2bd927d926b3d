"""Interpretation: what goes on inside a model, and what a change did to it.

- `lenses`: what each layer would predict if it were the last one.
- `model_diff`: two models on the same texts, from the output down to the weights."""

from intarsia.interpretation.lenses import Lens, LensConfig, lens
from intarsia.interpretation.model_diff import Diff, DiffConfig, diff

__all__ = [
    "Diff",
    "DiffConfig",
    "Lens",
    "LensConfig",
    "diff",
    "lens",
]
