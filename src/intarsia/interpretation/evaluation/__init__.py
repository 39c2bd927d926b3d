"""Evaluation of explanations: whether they are true of the model (faithfulness), and whether people would agree
(plausibility). High plausibility is no sign of faithfulness, nor the other way round."""

from intarsia.interpretation.evaluation.compare import CompareConfig, Comparison, compare
from intarsia.interpretation.evaluation.explain import ExplainConfig, Explanation, explain
from intarsia.interpretation.evaluation.faithfulness import Faithfulness, FaithfulnessConfig, faithfulness
from intarsia.interpretation.evaluation.planted import plant
from intarsia.interpretation.evaluation.plausibility import Plausibility, PlausibilityConfig, plausibility
from intarsia.interpretation.evaluation.sanity import Sanity, SanityConfig, sanity

__all__ = [
    "CompareConfig",
    "Comparison",
    "ExplainConfig",
    "Explanation",
    "Faithfulness",
    "FaithfulnessConfig",
    "Plausibility",
    "PlausibilityConfig",
    "Sanity",
    "SanityConfig",
    "compare",
    "explain",
    "faithfulness",
    "plant",
    "plausibility",
    "sanity",
]
