"""Interpretation: what goes on inside a model, and what a change did to it.

- `lens` (`interpretation.lens`): what each layer would predict if it were the last one (the logit lens).
- `diff` (`interpretation.diff`): two models on the same texts, from the output down to the weights."""

from intarsia.interpretation.diff import DiffConfig, diff
from intarsia.interpretation.diff_finding import Diff
from intarsia.interpretation.lens import Lens, LensConfig, lens

__all__ = ["Diff", "DiffConfig", "Lens", "LensConfig", "diff", "lens"]
