"""The model diff: two models on the same texts, from the output down to the weights."""

from intarsia.interpretation.model_diff.finding import Diff
from intarsia.interpretation.model_diff.technique import DiffConfig, diff
from intarsia.interpretation.model_diff.tuning_effect import TuningEffect, TuningEffectConfig, tuning_effect

__all__ = ["Diff", "DiffConfig", "TuningEffect", "TuningEffectConfig", "diff", "tuning_effect"]
