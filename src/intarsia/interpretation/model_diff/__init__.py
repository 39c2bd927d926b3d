"""The model diff: two models on the same texts, from the output down to the weights."""

from intarsia.interpretation.model_diff.finding import Diff
from intarsia.interpretation.model_diff.technique import DiffConfig, diff

__all__ = ["Diff", "DiffConfig", "diff"]
