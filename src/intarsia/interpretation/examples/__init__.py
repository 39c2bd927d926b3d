"""Explanations by example: texts that almost say the same and are answered otherwise, and the training texts behind an
answer.

- `adversarial`: swap few words for similar ones until the answer flips.
- `counterfactual`: the smallest fluent edit that gets another answer.
- `influence`: which training texts made the model answer so."""

from intarsia.interpretation.examples.adversarial import AdversarialConfig, adversarial
from intarsia.interpretation.examples.counterfactual import CounterfactualConfig, counterfactual
from intarsia.interpretation.examples.finding import EditedText, EditedTexts
from intarsia.interpretation.examples.influence import Influence, InfluenceConfig, influence

__all__ = [
    "AdversarialConfig",
    "CounterfactualConfig",
    "EditedText",
    "EditedTexts",
    "Influence",
    "InfluenceConfig",
    "adversarial",
    "counterfactual",
    "influence",
]
